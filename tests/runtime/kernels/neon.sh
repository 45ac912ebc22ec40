#!/bin/sh
# Builds simd_test.cc as an ARM64 program and runs it under qemu: the NEON kernels, on a machine of another kind.
#
#     neon.sh HIGHWAY-HEADERS BUILD-FOLDER [ROUNDS]
#
# Needs aarch64-linux-gnu-g++ and qemu-aarch64 (Debian: g++-aarch64-linux-gnu and qemu-user).
set -eu
root=$(cd "$(dirname "$0")/../../.." && pwd)
qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static)
mkdir -p "$2"
aarch64-linux-gnu-g++ -std=c++17 -O3 -static -Wall -Wextra -Wpedantic -DHWY_IS_DEBUG_BUILD=0 \
    -I "$root/runtime/cpp" -isystem "$1" \
    "$root/runtime/cpp/ops/simd.cc" "$root/tests/runtime/kernels/simd_test.cc" -o "$2/simd_test"
"$qemu" "$2/simd_test" "${3:-100}"
