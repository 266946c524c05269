#!/bin/sh
# Builds the library and the program with the oldest versions of our dependencies that Cargo.toml allows.
# Cargo finds those only with an unstable option, which RUSTC_BOOTSTRAP lets a stable one have; nothing is built with it.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
copy=${CARGO_TARGET_DIR:-$root/target}/minimal-versions
mkdir -p "$copy"
cd "$copy"
rm -rf Cargo.toml Cargo.lock src benches examples assets README.md
cp -r "$root/Cargo.toml" "$root/Cargo.lock" "$root/src" "$root/benches" "$root/examples" "$root/assets" "$root/README.md" .
RUSTC_BOOTSTRAP=1 cargo update -Z direct-minimal-versions
CARGO_TARGET_DIR=$copy/target cargo check --locked --lib --bins
