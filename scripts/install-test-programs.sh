#!/bin/sh
# Installs the programs that single tests run (GNU parallel, strace, poppler's, zsh, fish, man, jq), where that can be done without asking.
# Where it cannot, those tests are skipped and say so, except that tests/manual.rs fails where CI is set.
set -eu

missing=
parallel --version 2>/dev/null | grep -q '^GNU parallel' || missing=parallel
# Of Linux alone.
[ "$(uname)" != Linux ] || command -v strace >/dev/null || missing="$missing strace"
# Debian calls poppler's programs poppler-utils, Homebrew poppler.
{ command -v pdftoppm && command -v pdftotext; } >/dev/null || missing="$missing poppler-utils"

for name in zsh fish jq; do
    command -v "$name" >/dev/null || missing="$missing $name"
done
# Every other system has it.
[ "$(uname)" != Linux ] || command -v man >/dev/null || missing="$missing man-db"

for program in $missing; do
    if command -v apt-get >/dev/null; then
        "$(dirname "$0")/apt-install.sh" "$program"
    elif command -v brew >/dev/null; then
        brew install "${program%-utils}"
    else
        false
    fi || echo "going on without $program: some tests are skipped" >&2
done
