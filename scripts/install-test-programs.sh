#!/bin/sh
# Installs the programs that single tests run, GNU parallel, strace and poppler's, where that can be done without asking; else those tests are
# skipped and say so.
set -eu

missing=
parallel --version 2>/dev/null | grep -q '^GNU parallel' || missing=parallel
# Of Linux alone.
[ "$(uname)" != Linux ] || command -v strace >/dev/null || missing="$missing strace"
# Debian calls poppler's programs poppler-utils, Homebrew poppler.
{ command -v pdftoppm && command -v pdftotext; } >/dev/null || missing="$missing poppler-utils"

for program in $missing; do
    if command -v apt-get >/dev/null; then
        "$(dirname "$0")/apt-install.sh" "$program"
    elif command -v brew >/dev/null; then
        brew install "${program%-utils}"
    else
        false
    fi || echo "going on without $program: some tests are skipped" >&2
done
