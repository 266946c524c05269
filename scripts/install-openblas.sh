#!/bin/sh
# Makes sure that a program can be linked with OpenBLAS; installs it where it is missing. Quiet where nothing is to do.
#   Debian, Ubuntu: apt-get (as root, or with sudo). macOS: brew. Elsewhere it says what to install and stops.
set -eu

say() { printf '%s\n' "$*" >&2; }

# The linker that rustc uses by default is `cc` too, so this finds what the build will find.
works() {
    dir=$(mktemp -d)
    printf 'void openblas_set_num_threads(int);\nint main(void) { openblas_set_num_threads(1); return 0; }\n' >"$dir/try.c"
    flags=$(pkg-config --libs openblas 2>/dev/null) || flags=-lopenblas
    if [ "$(uname -s)" = Darwin ] && prefix=$(brew --prefix openblas 2>/dev/null); then flags="-L$prefix/lib -lopenblas"; fi
    status=0
    # shellcheck disable=SC2086  # several flags
    cc "$dir/try.c" $flags -o "$dir/try" >"$dir/said" 2>&1 || status=1
    rm -r "$dir"
    return $status
}

if ! command -v cargo >/dev/null; then
    say "cargo is missing. Install Rust (1.95 or later): https://rustup.rs"
    exit 1
fi
if works; then exit 0; fi

if [ "$(uname -s)" = Darwin ]; then
    if ! command -v brew >/dev/null; then
        say "OpenBLAS is missing, and so is Homebrew (https://brew.sh). With it: brew install openblas libomp"
        exit 1
    fi
    say "installing OpenBLAS: brew install openblas libomp"
    brew install openblas libomp
elif command -v apt-get >/dev/null; then
    missing=libopenblas-dev
    command -v cc >/dev/null || missing="gcc libc6-dev $missing"
    "$(dirname "$0")/apt-install.sh" $missing
else
    say "OpenBLAS with its development files is missing. Install it, and a C compiler for linking, with one of"
    say "  Fedora:    sudo dnf install gcc openblas-devel"
    say "  Arch:      sudo pacman -S gcc openblas"
    say "  openSUSE:  sudo zypper install gcc openblas-devel"
    say "or build without it: cargo build --release --no-default-features --features cli,parquet,pdf,openblas-static   (downloads and compiles OpenBLAS)"
    exit 1
fi

if ! works; then
    say "OpenBLAS was installed, but linking with -lopenblas still fails. This is what the linker says:"
    printf 'int main(void) { return 0; }\n' | cc -x c - -lopenblas -o /dev/null || true
    exit 1
fi
