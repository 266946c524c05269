#!/bin/sh
# Makes the Python environment of `make interop`, once, and prints the path of its Python.
#   CONDLORA_INTEROP_PYTHON   a Python that has torch, transformers, peft, pandas and pytest already: then nothing is installed
#   CONDLORA_INTEROP_VENV     where the environment goes   (default in the user's cache directory)
# PyTorch is Debian's, for the CPU: a tenth of the size of the one on PyPI.
set -eu

if [ -n "${CONDLORA_INTEROP_PYTHON:-}" ]; then
    echo "$CONDLORA_INTEROP_PYTHON"
    exit 0
fi

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
venv=${CONDLORA_INTEROP_VENV:-${XDG_CACHE_HOME:-$HOME/.cache}/condlora/interop-venv}
system=/usr/bin/python3

if ! "$system" -c 'import torch, venv, ensurepip' 2>/dev/null; then
    if ! command -v apt-get >/dev/null; then
        echo "The interop tests take PyTorch from Debian. Elsewhere, name a Python that has torch and the packages of" >&2
        echo "tests/interop/requirements.txt: CONDLORA_INTEROP_PYTHON=/path/to/python make interop" >&2
        exit 1
    fi
    "$root/scripts/apt-install.sh" python3-torch python3-venv >&2
fi

# The reports are read in a browser, and what it prints by pdftotext.
if ! command -v chromium >/dev/null || ! command -v pdftotext >/dev/null; then
    if command -v apt-get >/dev/null; then
        "$root/scripts/apt-install.sh" chromium poppler-utils >&2 || echo "going on without chromium: report.html is not tested in it" >&2
    fi
fi

# A cluster of one node, for which its daemons need root.
if [ "$(id -u)" = 0 ] && ! command -v slurmctld >/dev/null && command -v apt-get >/dev/null; then
    "$root/scripts/apt-install.sh" slurm-wlm munge >&2 || echo "going on without Slurm: its example is not tested" >&2
fi

if ! cmp -s "$here/requirements.txt" "$venv/installed-requirements.txt"; then
    echo "installing $(grep -c '^[a-z]' "$here/requirements.txt") Python packages into $venv" >&2
    rm -rf "$venv"
    "$system" -m venv --system-site-packages "$venv" >&2
    "$venv/bin/pip" install --quiet --no-cache-dir -r "$here/requirements.txt" >&2
    # Debian's torch has no version that pip would know, and of the other one (axe-core's script) no browser is wanted.
    # shellcheck disable=SC2046 # several packages
    "$venv/bin/pip" install --quiet --no-cache-dir --no-deps $(sed -n 's/^# without its dependencies: //p' "$here/requirements.txt") >&2
    cp "$here/requirements.txt" "$venv/installed-requirements.txt"
fi
echo "$venv/bin/python"
