# shellcheck shell=bash
# What the scripts beside this file share. Sourced, never run; the sourcing script has set -euo.
# Sets `checkout` (the repository's root) and changes into it; everything made lies below `target/`.

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
cd "$checkout"
here=$checkout/.ci/python
out=$checkout/target/python
forky=${FIBERBACK_FORKY:-/var/tmp/fiberback-forky}
supported=(3.11 3.12 3.13 3.14 3.15)
export FIBERBACK_FORKY=$forky

# Somebody's virtual environment or search path must not leak into what we build and test.
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV PIP_TARGET PIP_PREFIX PIP_USER
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PYTHONDONTWRITEBYTECODE=1

say() { printf '%s: %s\n' "$(basename "$0")" "$*"; }

quietly() { # quietly LOG COMMAND...: output goes to LOG; its end is shown if the command fails
    local log=$1 code=0
    shift
    mkdir -p "$(dirname "$log")"
    "$@" >"$log" 2>&1 </dev/null || code=$?
    if ((code != 0)); then
        say "failed (exit $code): $*"
        tail -n 40 "$log" | sed 's/^/    /'
        say "whole log: $log"
    fi
    return "$code"
}

# describe PYTHON: "MINOR FULL PATH" of a CPython that we could build for, or nothing. Free-threaded
# and debug builds, other implementations and interpreters without headers give nothing.
describe() {
    "$@" -I -c '
import os, sys, sysconfig
free_threaded = sysconfig.get_config_var("Py_GIL_DISABLED")
debug = hasattr(sys, "gettotalrefcount")
if sys.implementation.name == "cpython" and not free_threaded and not debug:
    path = getattr(sys, "_base_executable", None) or sys.executable
    header = os.path.join(sysconfig.get_path("include"), "Python.h")
    if os.path.exists(header):
        print("%d.%d" % sys.version_info[:2], sys.version.split()[0], path)
    else:
        sys.stderr.write("ignoring %s: no headers (%s)\n" % (path, header))
' 2> >(grep '^ignoring' >&2) || true
}

# make_venv PYTHON DIR: a virtual environment with pip in it. Some machines' python3 comes without
# ensurepip, some without venv: then their pip, or virtualenv from PyPI, does it.
make_venv() {
    local python=$1 dir=$2 log=$2.log
    rm -rf "$dir"
    mkdir -p "$(dirname "$dir")"
    : >"$log"
    if "$python" -m venv "$dir" >>"$log" 2>&1; then return; fi
    rm -rf "$dir"
    if ! "$python" -m pip --version >>"$log" 2>&1; then
        say "$python has neither a working venv nor pip (log: $log)"
        return 1
    fi
    if "$python" -m venv --without-pip "$dir" >>"$log" 2>&1 &&
        "$python" -m pip --python "$dir/bin/python" install -q pip >>"$log" 2>&1; then
        say "$python lacks ensurepip: its own pip installed pip into $dir"
        return
    fi
    rm -rf "$dir"
    local tool=$out/virtualenv
    if "$python" -m pip install -q --upgrade --target "$tool" virtualenv >>"$log" 2>&1 &&
        PYTHONPATH=$tool "$python" -m virtualenv -q "$dir" >>"$log" 2>&1; then
        say "$python lacks venv: used virtualenv from PyPI"
        return
    fi
    say "cannot make a virtual environment with $python:"
    tail -n 15 "$log" | sed 's/^/    /'
    return 1
}

# locked NAME: waits until no other run uses target/python/NAME; the lock ends with this process.
locked() {
    mkdir -p "$out"
    exec 8>"$out/$1.lock"
    command -v flock >/dev/null || return 0
    flock -n 8 && return 0
    say "waiting for another run that uses target/python/$1"
    flock 8
}

# own_interpreter: the line of `interpreters` for this machine's own python3 if we support it, else
# for the newest supported one on the host; nothing if there is none.
own_interpreter() {
    local own
    own=$(describe python3 | cut -d' ' -f1)
    if [[ -n $own ]] && "$here/interpreters" "$own" 2>/dev/null; then return; fi
    "$here/interpreters" 2>/dev/null | awk '$4 == "host"' | tail -n 1
}

# chroot_for MINOR...: builds the chroot of forky-chroot if one of them is not to be had without.
chroot_for() {
    case " $* " in
        *" 3.14 "* | *" 3.15 "*) "$here/interpreters" 3.14 3.15 >/dev/null || "$here/forky-chroot" "$forky" ;;
    esac
}

# headers_of PYTHON KIND: the directory of its Python.h, under the name that it has outside of the chroot. A line of
# `interpreters` has both.
headers_of() {
    local prefix=() root=
    if [[ $2 == chroot ]]; then prefix=("$here/forky-run") root=$forky; fi
    echo "$root$("${prefix[@]}" "$1" -I -c 'import sysconfig; print(sysconfig.get_paths()["include"])')"
}

# pyo3_config FILE MINOR [free_threaded]: what pyo3's build script would ask an interpreter that it could run.
pyo3_config() {
    local flags=()
    if [[ ${3:-} == free_threaded ]]; then flags=(build_flags=Py_GIL_DISABLED); fi
    printf '%s\n' implementation=CPython "version=$2" shared=true "target_abi=CPython-${3:-gil_enabled}-$2" \
        "${flags[@]}" pointer_width=64 suppress_build_script_link_lines=true >"$1"
}

# pinned_venv PYTHON DIR REQUIREMENTS: a virtual environment that holds these requirements; made
# anew if the interpreter or the requirements changed since.
pinned_venv() {
    local python=$1 dir=$2 requirements=$3 stamp
    stamp="$("$python" -V) $python $(cksum <"$requirements")"
    if [[ -x $dir/bin/python && $(cat "$dir/.stamp" 2>/dev/null) == "$stamp" ]]; then return; fi
    say "making ${dir#"$checkout"/} with $python"
    make_venv "$python" "$dir" || return 1
    install_requirements "$dir" "$requirements" || return 1
    printf '%s\n' "$stamp" >"$dir/.stamp"
}

# install_requirements VENV REQUIREMENTS: all of them at once as wheels; if that fails one by one, as
# a wheel, or built from source, or left out: VENV/.left-out lists those, and the output says so.
install_requirements() {
    local venv=$1 requirements=$2 pip line
    pip=("$venv/bin/python" -m pip install -q)
    : >"$venv/.left-out"
    if "${pip[@]}" --only-binary :all: -r "$requirements" >"$venv/pip.log" 2>&1; then return; fi
    say "not all requirements can be had as wheels; trying one by one (log: $venv/pip.log)"
    while read -r line; do
        [[ -n $line && $line != \#* ]] || continue
        if "${pip[@]}" --only-binary :all: "$line" >>"$venv/pip.log" 2>&1; then continue; fi
        if "${pip[@]}" "$line" >>"$venv/pip.log" 2>&1; then
            say "no wheel of $line: built it from source"
        else
            say "LEFT OUT: $line can neither be had as a wheel nor built"
            printf '%s\n' "$line" >>"$venv/.left-out"
        fi
    done <"$requirements"
}
