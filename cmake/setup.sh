# Sourced by tests/run.sh and examples/demo.sh: what a fresh machine lacks, and commands that say which one failed.
# Nothing is asked, and nothing is done where everything is there already.

# run COMMAND...: shows the command and runs it; when it fails, prints exactly that command and ends.
run() {
  printf '+ %s\n' "$(printf '%q ' "$@")" >&2
  local status=0
  "$@" || status=$?
  if [ "$status" -ne 0 ]; then
    printf '\nFAILED with status %s in %s:\n  %s\n' "$status" "$PWD" "$(printf '%q ' "$@")" >&2
    exit "$status"
  fi
}

# has_header NAME: whether the C++ compiler finds this header.
has_header() {
  command -v g++ >/dev/null && printf '#if !__has_include(<%s>)\n#error\n#endif\n' "$1" |
    g++ -x c++ -E -I/usr/include/eigen3 - >/dev/null 2>&1
}

# at_least VERSION COMMAND: whether `COMMAND --version` names this version or a later one.
at_least() {
  local found
  found=$("$2" --version 2>/dev/null | grep -oE '[0-9]+\.[0-9]+(\.[0-9]+)?' | head -n 1) || return 1
  [ "$(printf '%s\n%s\n' "$1" "$found" | sort -V | head -n 1)" = "$1" ]
}

# has PACKAGE: whether the machine has what the Debian package of that name gives, from wherever it comes.
has() {
  case "$1" in
    g++) command -v g++ >/dev/null ;;
    cmake) at_least 3.25 cmake ;;
    ninja-build) command -v ninja >/dev/null ;;
    clang) command -v clang++ >/dev/null ;;
    clang-tidy | clang-format | unzip) command -v "$1" >/dev/null ;;
    g++-aarch64-linux-gnu) command -v aarch64-linux-gnu-g++ >/dev/null ;;
    qemu-user) command -v qemu-aarch64 >/dev/null ;;
    libclang-rt-dev) # the sanitizers' run-time libraries of clang
      command -v clang++ >/dev/null && [ -n "$(ls "$(clang++ -print-resource-dir)"/lib/*/*tsan* 2>/dev/null)" ] ;;
    libeigen3-dev) has_header Eigen/Core ;;
    libxsimd-dev) has_header xsimd/xsimd.hpp ;;
    doctest-dev) has_header doctest/doctest.h ;;
    libcli11-dev) has_header CLI/CLI.hpp ;;
    nlohmann-json3-dev) has_header nlohmann/json.hpp ;;
    libbenchmark-dev) has_header benchmark/benchmark.h ;;
    python3-matplotlib) /usr/bin/python3 -c 'import matplotlib' 2>/dev/null ;;
    python3-pip) python3 -m pip --version >/dev/null 2>&1 ;;
    ca-certificates) [ -e /etc/ssl/certs/ca-certificates.crt ] || [ -e /etc/ssl/cert.pem ] || [ -e /etc/pki/tls/certs ] ;;
    bible-kjv) command -v bible >/dev/null ;;
    *) return 1 ;;
  esac
}

missing_of() {
  local package
  for package in "$@"; do
    has "$package" || echo "$package"
  done
}

# install_missing PACKAGE...: installs those that the machine lacks with apt-get; without apt-get it names them and ends.
install_missing() {
  local missing apt=()
  mapfile -t missing < <(missing_of "$@")
  [ "${#missing[@]}" -gt 0 ] || return 0
  if ! command -v apt-get >/dev/null; then
    printf 'This machine lacks (by the names of the Debian packages): %s\n' "${missing[*]}" >&2
    printf 'Only apt-get is known here; install them and start again.\n' >&2
    exit 1
  fi
  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null; then
      printf 'Not root, and no sudo. As root: apt-get install %s\n' "${missing[*]}" >&2
      exit 1
    fi
    apt=(sudo)
    [ -t 0 ] || apt+=(-n)
  fi
  apt+=(env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300)
  run "${apt[@]}" update
  run "${apt[@]}" install --yes --no-install-recommends "${missing[@]}"
  hash -r
  mapfile -t missing < <(missing_of "$@")
  if [ "${#missing[@]}" -gt 0 ]; then
    printf 'Still missing or too old after apt-get: %s\n' "${missing[*]}" >&2
    exit 1
  fi
}
