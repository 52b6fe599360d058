# shellcheck shell=bash
# Wine, in a Debian chroot of its own (/var/tmp/fiberback-wine, which .ci/debootstrap builds once). Sourced after
# common.sh: sets `wine`, the words to put before a Windows program and its arguments.

wine_root=${FIBERBACK_WINE:-/var/tmp/fiberback-wine}
# Debian's wrapper, which is named `wine`, is in a package that wants a 32-bit Wine, too.
wine_program=/usr/lib/wine/wine64
if [[ ! -x $wine_root$wine_program || ! -f $wine_root/.fiberback-complete ]]; then
    .ci/debootstrap trixie "$wine_root" wine64 || exit 3
fi
export WINEPREFIX=$out/wine-prefix WINEDEBUG=-all WINEDLLOVERRIDES="mscoree,mshtml=" XDG_RUNTIME_DIR=/tmp DISPLAY=
in_wine_root=(env FIBERBACK_FORKY="$wine_root" .ci/python/forky-run)
wine=("${in_wine_root[@]}" "$wine_program")
# What Wine leaves running for the next program is ended with us.
end_wine() { "${in_wine_root[@]}" /usr/lib/wine/wineserver64 -k >/dev/null 2>&1 || true; }
trap end_wine EXIT
if [[ ! -f $WINEPREFIX/system.reg ]]; then
    say "making a Windows prefix"
    "${wine[@]}" wineboot --init >"$out/wineboot.log" 2>&1 </dev/null || { tail "$out/wineboot.log"; unavailable "Wine does not start"; }
fi
