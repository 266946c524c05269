#!/bin/sh
# Installs the programs that single tests run, GNU parallel and strace, where that can be done without asking; else those tests are
# skipped and say so.
set -eu

missing=
parallel --version 2>/dev/null | grep -q '^GNU parallel' || missing=parallel
# Of Linux alone.
[ "$(uname)" != Linux ] || command -v strace >/dev/null || missing="$missing strace"

for program in $missing; do
    if command -v apt-get >/dev/null; then
        "$(dirname "$0")/apt-install.sh" "$program"
    elif command -v brew >/dev/null; then
        brew install "$program"
    else
        false
    fi || echo "going on without $program: some tests are skipped" >&2
done
