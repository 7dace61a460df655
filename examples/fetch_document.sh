#!/usr/bin/env bash
# Prints the path of a plain text of about 4,000 tokens (3,927 of SmolLM2's): Genesis 1:1 to 5:24 in the King James
# version (public domain) from the Debian package bible-kjv, made once. With --long: the whole of Genesis, about 50,000.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../cmake/setup.sh"

cache=${XDG_CACHE_HOME:-$HOME/.cache}/lazyllm
document=$cache/genesis-1-5.txt
verses=gen1:1-gen5:24
least_words=2500
if [ "${1-}" = --long ]; then
  document=$cache/genesis.txt
  verses=gen1:1-gen50:26
  least_words=35000
fi

if [ ! -s "$document" ]; then
  install_missing bible-kjv >&2
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/text.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  run bible -f "$verses" >"$work/verses"
  sed -E 's/^Ge[0-9]+:[0-9]+ //' "$work/verses" >"$work/text" # a verse a line, without its number
  words=$(wc -w <"$work/text")
  if [ "$words" -lt "$least_words" ]; then
    echo "bible printed $words words where at least $least_words were expected" >&2
    exit 1
  fi
  mv -f "$work/text" "$document" # all or nothing
fi
echo "$document"
