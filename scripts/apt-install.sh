#!/bin/sh
# Installs Debian packages as root or with sudo, or says which. usage: apt-install.sh PACKAGE...
set -eu

if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null && { [ -t 0 ] || sudo -n true 2>/dev/null; }; then
    as_root=sudo
else
    echo "missing: $*. As root: apt-get install -y --no-install-recommends $*" >&2
    exit 1
fi
echo "installing $*" >&2
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
