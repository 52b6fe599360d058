# shellcheck shell=bash
# A Rust compiler with its standard library's sources, to build that for platforms for which it is not installed:
# Debian packages both (rustc-web, rust-web-src); cargo is the one in use. Sourced from the repository's root by a
# script that has set -euo; everything is unpacked below target/cross-check. Sets and exports what cargo needs.
# Ends the script with exit code 3 where that compiler is not to be had.

debian_rust=$PWD/target/cross-check/root
mkdir -p "$(dirname "$debian_rust")"
exec 7>"$debian_rust.lock"
flock 7
if [[ ! -x $debian_rust/usr/bin/rustc ]]; then
    command -v apt-get dpkg >/dev/null || { echo "debian-rust: no apt-get here"; exit 3; }
    unpacked=$(mktemp -d)
    trap 'rm -rf "$unpacked"' EXIT
    chmod 755 "$unpacked"
    apt-get update -qq >/dev/null 2>&1 || true
    full=$(apt-cache madison rust-web-src | awk '{print $3; exit}')
    [[ -n $full ]] || { echo "debian-rust: Debian has no rust-web-src here"; exit 3; }
    version=$(cut -d. -f1,2 <<<"$full")
    packages=("rustc-web=$full" "rust-web-src=$full" "libstd-rust-web-dev=$full"
        "libstd-rust-web-$version=$full")
    for library in $(apt-cache depends "${packages[@]}" |
        sed -n 's/.*Depends: \(libllvm[a-z0-9.+-]*\)$/\1/p' | sort -u); do
        packages+=("$library")
    done
    echo "debian-rust: unpacking ${packages[*]}"
    (cd "$unpacked" && apt-get download -qq "${packages[@]}" >/dev/null 2>&1) ||
        { echo "debian-rust: the packages cannot be downloaded"; exit 3; }
    mkdir -p "$unpacked/root"
    for deb in "$unpacked"/*.deb; do dpkg -x "$deb" "$unpacked/root"; done
    rm -rf "$debian_rust"
    mv "$unpacked/root" "$debian_rust"
    rm -rf "$unpacked"
    trap - EXIT
fi
exec 7>&-

llvm=$(find "$debian_rust/usr/lib" -name 'libLLVM*.so*' -printf '%h\n' | sort -u | paste -sd: -)
export LD_LIBRARY_PATH=$debian_rust/usr/lib/x86_64-linux-gnu:$debian_rust/usr/lib${llvm:+:$llvm}
export RUSTC=$debian_rust/usr/bin/rustc
export RUSTC_BOOTSTRAP=1 # for -Zbuild-std, on a compiler that is not a nightly
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS RUSTUP_TOOLCHAIN
"$RUSTC" --version
