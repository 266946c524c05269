#!/bin/sh
# Times condlora against NumPy and PyTorch. usage: run.sh [compare.py options]    (see README.md)
#   CONDLORA                 release binary (default target/release/condlora of this repository; never built here)
#   CONDLORA_COMPARE_SHAPE   options for make_checkpoint.py, such as "--layers 24 --width 1024 --rank 16"
#   CONDLORA_COMPARE_VENV    virtual environment, made on the first run     (default in the user's cache directory)
#   CONDLORA_COMPARE_DATA    generated checkpoints, one folder a shape      (default in the user's cache directory)
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/condlora
venv=${CONDLORA_COMPARE_VENV:-$cache/compare-venv}
data=${CONDLORA_COMPARE_DATA:-$cache/compare-data}
binary=${CONDLORA:-$(cd "$here/../.." && pwd)/target/release/condlora}
shape=${CONDLORA_COMPARE_SHAPE:-}

if ! cmp -s "$here/requirements.txt" "$venv/installed-requirements.txt"; then
    echo "installing $(grep -c '^[a-z]' "$here/requirements.txt") packages into $venv (several GB)" >&2
    "${PYTHON:-python3}" -m venv "$venv"
    "$venv/bin/pip" install --quiet --no-cache-dir -r "$here/requirements.txt"
    cp "$here/requirements.txt" "$venv/installed-requirements.txt"
fi

work=$data/roberta$(printf '%s' "$shape" | tr -s ' ' '_' | tr -cd 'A-Za-z0-9_,=-')
# shellcheck disable=SC2086  # the shape is a list of options
"$venv/bin/python" "$here/make_checkpoint.py" "$work" $shape
exec "$venv/bin/python" "$here/compare.py" "$work" --condlora "$binary" "$@"
