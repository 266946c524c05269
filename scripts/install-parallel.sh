#!/bin/sh
# Installs GNU parallel, which one test runs, where that can be done without asking; else that test is skipped and says so.
set -eu

if parallel --version 2>/dev/null | grep -q '^GNU parallel'; then exit 0; fi
if command -v apt-get >/dev/null; then
    "$(dirname "$0")/apt-install.sh" parallel || echo "going on without GNU parallel: one test is skipped" >&2
elif command -v brew >/dev/null; then
    brew install parallel || echo "going on without GNU parallel: one test is skipped" >&2
else
    echo "going on without GNU parallel: one test is skipped" >&2
fi
