#!/bin/sh
# Times condlora, against NumPy and PyTorch where they can do the same. (see README.md)
# usage: run.sh [STUDY] [options of its script]
#   study      the study of the README (the default): compare.py
#   adapters   100 adapters on one base: together, each by itself, and in NumPy and PyTorch: compare.py
#   wide       four weights of 4096 x 4096, rank 16: compare.py
#   llama      all seven modules of two layers of Llama-3.2-1B's shape, and of one of Llama-3-8B's, rank 16: compare.py
#   bytes      what is read of a base of 10 GB: bytes_read.py
#   power      how often each test finds a planted shared Θ, into figures/: power.py
#   growth     time against layers, width, rank and adapters, into figures/: growth.py
# Variables:
#   CONDLORA                 release binary (default target/release/condlora of this repository; never built here)
#   CONDLORA_COMPARE_SHAPE   options for make_checkpoint.py, such as "--layers 24 --width 1024 --rank 16", instead of the study's own
#   CONDLORA_COMPARE_VENV    virtual environment, made on the first run     (default in the user's cache directory)
#   CONDLORA_COMPARE_DATA    generated checkpoints, one folder a shape      (default in the user's cache directory)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/condlora
venv=${CONDLORA_COMPARE_VENV:-$cache/compare-venv}
data=${CONDLORA_COMPARE_DATA:-$cache/compare-data}
binary=${CONDLORA:-$root/target/release/condlora}

study=study
case ${1:-} in
study | adapters | wide | llama | bytes | growth | power)
    study=$1
    shift
    ;;
esac

if ! cmp -s "$here/requirements.txt" "$venv/installed-requirements.txt"; then
    echo "installing $(grep -c '^[a-z]' "$here/requirements.txt") packages into $venv (several GB)" >&2
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-cache-dir -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed-requirements.txt"
fi

# Makes the checkpoint of a shape and times the programs on it.
compare() {
    shape=$1
    shift
    work=$data/$(printf '%s' "roberta$shape" | tr -s ' ' '_' | tr -cd 'A-Za-z0-9_,=-')
    # shellcheck disable=SC2086  # the shape is a list of options
    "$venv/bin/python" "$here/make_checkpoint.py" "$work" $shape
    "$venv/bin/python" "$here/compare.py" "$work" --condlora "$binary" "$@"
}

case $study in
study) shape= ;;
adapters)
    shape="--adapters 100"
    set -- --rounds 3 "$@"
    ;;
wide)
    shape="--layers 4 --width 4096 --rank 16 --modules query"
    set -- --rounds 3 "$@"
    ;;
llama)
    # numpy.linalg.solve is for square weights.
    set -- --rounds 3 --without numpy-solve "$@"
    compare "--llama 512,8192 --width 2048 --layers 2 --rank 16" "$@"
    compare "--llama 1024,14336 --width 4096 --layers 1 --rank 16" "$@"
    exit
    ;;
bytes) exec "$venv/bin/python" "$here/bytes_read.py" "$data" --condlora "$binary" "$@" ;;
power)
    cd "$root"
    exec "$venv/bin/python" "$here/power.py" "$data/power" --condlora "$binary" --csv figures/power.csv \
        --figure figures/power.svg figures/power.png "$@"
    ;;
growth)
    exec "$venv/bin/python" "$here/growth.py" "$data" --condlora "$binary" --csv "$root/figures/growth.csv" \
        --figure "$root/figures/growth.svg" "$root/figures/growth.png" "$@"
    ;;
esac

compare "${CONDLORA_COMPARE_SHAPE:-$shape}" "$@"
