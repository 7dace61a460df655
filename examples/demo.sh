#!/usr/bin/env bash
# The demonstration, from a fresh machine to an answer: a question about a document of about 4,000 tokens, dense and
# with LazyLLM.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source cmake/setup.sh

install_missing g++ cmake ninja-build libeigen3-dev libxsimd-dev libcli11-dev nlohmann-json3-dev ca-certificates \
  python3-pip bible-kjv
model=$(run examples/fetch_model.sh)
document=$(run examples/fetch_document.sh)
run cmake --preset release -D LAZYLLM_BUILD_TESTS=OFF -D LAZYLLM_BUILD_BENCHMARKS=OFF
run cmake --build --preset release --target lazyllm_demo --parallel "$(nproc)"
run build/release/bin/lazyllm_demo --model "$model" --document "$document"
