#!/bin/sh
# Fetches what the C++ part is built with, where the system's package manager is apt: the headers of ONNX Runtime,
# Highway, nlohmann-json and OpenSSL. Nothing is installed and no root is needed: packages are downloaded with the
# system's own sources and keys, and unpacked below the folder given. Elsewhere it says what to install, and fails.
#
#     dependencies.sh FOLDER
set -eu
target=$1
[ -e "$target/.ready" ] && exit 0

say() { echo "native: $*" >&2; exit 1; }
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    say "no apt here; install a C++17 compiler, CMake, Highway, nlohmann-json, OpenSSL and the ONNX Runtime headers"

# ONNX Runtime's headers are in Debian from trixie on; an older release borrows that suite for this download alone.
codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
apt=$target/apt
rm -rf "$target" && mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/sources"
cp /etc/apt/sources.list.d/debian.sources "$apt/sources/" 2>/dev/null || true
[ ! -s /etc/apt/sources.list ] || cp /etc/apt/sources.list "$apt/sources/debian.list"
for file in "$apt"/sources/*; do
    [ -e "$file" ] || say "no sources of apt found in /etc/apt"
    case $codename in
    bookworm) sed "s/bookworm/trixie/g" "$file" >"${file%/*}/newer-${file##*/}" ;;
    esac
done

fetch() { # fetch SUITE-OPTIONS... PACKAGE...
    (cd "$apt/archives" && apt-get -qq -o Dir::State::lists="$apt/lists" -o Dir::Cache="$apt" \
        -o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts="$apt/sources" -o APT::Sandbox::User= "$@")
}
fetch update || say "apt cannot read its package lists; is there a network?"
release=${codename:+/$codename}
fetch download libhwy-dev "nlohmann-json3-dev$release" "libssl-dev$release" libonnxruntime-dev ||
    say "apt has no libonnxruntime-dev, libhwy-dev, nlohmann-json3-dev or libssl-dev"
for package in "$apt"/archives/*.deb; do
    dpkg-deb -x "$package" "$target"
done
rm -rf "$apt"
touch "$target/.ready"
