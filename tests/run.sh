#!/usr/bin/env bash
# Sets the machine up, then builds and tests everything and ends with one ctest summary.
#   tests/run.sh            g++, clang, asan-ubsan, tsan
#   tests/run.sh --quick    g++ only
#   tests/run.sh --full     the same as without an option, plus the slow leg: neon (AArch64, cross-compiled, qemu-user)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

presets=(release clang asan-ubsan tsan)
packages=(g++ cmake ninja-build libeigen3-dev libxsimd-dev doctest-dev libcli11-dev nlohmann-json3-dev libbenchmark-dev
  clang-tidy clang-format python3-matplotlib g++-aarch64-linux-gnu)
case "${1:-}" in
  '') packages+=(clang libclang-rt-dev) ;;
  --quick) presets=(release) ;;
  --full)
    presets+=(neon)
    packages+=(clang libclang-rt-dev qemu-user)
    ;;
  *)
    sed -n '2,5p' "${BASH_SOURCE[0]}"
    exit 2
    ;;
esac

install_missing "${packages[@]}"
LAZYLLM_MODEL=$(run examples/fetch_model.sh)
LAZYLLM_DOCUMENT=$(run examples/fetch_document.sh) # the demonstration's, whose answers a test checks
export LAZYLLM_MODEL LAZYLLM_DOCUMENT

jobs=$(nproc)
folders=()
for preset in "${presets[@]}"; do
  start=$SECONDS
  run cmake --preset "$preset"
  run cmake --build --preset "$preset" --parallel "$jobs"
  echo "built $preset in $((SECONDS - start)) s" >&2
  folders+=("$preset")
done

# A test tree over the trees of the presets: one ctest, one summary.
printf 'subdirs("%s")\n' "${folders[@]}" >build/CTestTestfile.cmake
run ctest --test-dir build --output-on-failure --no-tests=error --parallel "$jobs"
