#!/usr/bin/env bash
# Prints the path of a Chromium for tests/site. With --install, root on a Debian-like system gets Debian's if
# there is none; without, nothing is ever installed.
set -euo pipefail

find_browser() {
  local name
  for name in chromium chromium-browser google-chrome; do
    command -v "$name" && return
  done
  return 1
}

find_browser && exit

if [[ ${1-} == --install ]]; then
  # Only the path goes to standard output; what apt-get complains about stays on standard error.
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq >/dev/null
  apt-get install -y -qq --no-install-recommends chromium >/dev/null
  find_browser && exit
fi

echo "There is no Chromium in PATH. On Debian or Ubuntu, as root: apt-get install chromium (which is what" >&2
echo "'bash tools/chromium.sh --install' does). Elsewhere install your system's chromium or google-chrome." >&2
exit 1
