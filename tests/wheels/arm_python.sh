#!/bin/sh
# Unpacks Debian's Python for aarch64, and qemu-aarch64 for this machine, below a folder. Nothing is installed. Both are of
# Debian 13: under the qemu of Debian 12, ONNX Runtime for aarch64 crashes.
#
#     arm_python.sh FOLDER
set -eu
target=$1
[ -e "$target/.ready" ] && exit 0
apt=$target/apt
rm -rf "$target" && mkdir -p "$apt/sources" "$apt/archives/partial"
cp /etc/apt/sources.list.d/debian.sources "$apt/sources/" 2>/dev/null || true
[ ! -s /etc/apt/sources.list ] || cp /etc/apt/sources.list "$apt/sources/debian.list"
sed -i 's/bookworm/trixie/g' "$apt"/sources/*

fetch() { # fetch KIND-OF-MACHINE PACKAGE...
    kind=$1 && shift
    mkdir -p "$apt/$kind/partial" "$apt/debs/$kind"
    for what in update "download $*"; do
        # shellcheck disable=SC2086
        (cd "$apt/debs/$kind" && apt-get -qq -o APT::Architecture="$kind" -o APT::Architectures="$kind" \
            -o Dir::State::lists="$apt/$kind" -o Dir::State::status=/dev/null -o Dir::Cache="$apt" \
            -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$apt/sources" -o APT::Sandbox::User= $what)
    done
}
mkdir -p "$target/usr/lib" && ln -s usr/lib "$target/lib"
fetch arm64 libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 libssl3t64 libbz2-1.0 liblzma5 libsqlite3-0 libcrypt1 libuuid1 \
    libmpdec4 libzstd1 python3.13-minimal libpython3.13-minimal libpython3.13-stdlib
fetch "$(dpkg --print-architecture)" qemu-user
for package in "$apt"/debs/arm64/*.deb; do dpkg-deb -x "$package" "$target"; done
for package in "$apt"/debs/*/qemu-user*.deb; do dpkg-deb -x "$package" "$target/qemu"; done
rm -rf "$apt"
touch "$target/.ready"
