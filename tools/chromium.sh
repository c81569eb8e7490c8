#!/usr/bin/env bash
# Prints the path of a Chromium for tests/site; root on a Debian-like system gets Debian's if there is none.
set -euo pipefail

find_browser() {
  local name
  for name in chromium chromium-browser google-chrome; do
    command -v "$name" && return
  done
  return 1
}

find_browser && exit

if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
  # Only the path goes to standard output; what apt-get complains about stays on standard error.
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >/dev/null
  apt-get install -y -qq --no-install-recommends chromium >/dev/null
  find_browser && exit
fi

echo "No Chromium found: install your system's chromium (or google-chrome) and have it in PATH." >&2
exit 1
