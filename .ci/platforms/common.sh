# shellcheck shell=bash
# What the scripts beside this file share. Sourced, never run; the sourcing script has set -euo, and `platform`
# to the name of what it tests. Changes into the repository's root; all that is made lies below `target/platforms`.

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
checkout=$(pwd -P)
out=$checkout/target/platforms
counts=$out/$platform.counts
mkdir -p "$out"
rm -f "$counts"

say() { printf '%s: %s\n' "$platform" "$*"; }
unavailable() { say "not available here: $*"; exit 3; }

# One run at a time: they share the directory that cargo builds in, so that programs which run at build time are
# built once for all platforms.
exec 8>"$out/lock"
flock -n 8 || { say "waiting for another platform's run"; flock 8; }

install_packages() { # install_packages COMMAND-OR-FILE PACKAGE...: unless what they bring is there
    local brings=$1
    shift
    if [[ $brings == /* ]]; then [[ ! -e $brings ]] || return 0; else ! command -v "$brings" >/dev/null || return 0; fi
    [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null || unavailable "no $brings (Debian: apt-get install $*)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 ||
        { apt-get update -qq >/dev/null 2>&1; apt-get install -y -qq --no-install-recommends "$@" >/dev/null; } ||
        unavailable "apt-get could not install $*"
}

# crate_programs CARGO-COMMAND...: builds the crate's test programs of manifest.py, std included; prints "NAME PATH"
# of each. Needs debian-rust.sh.
crate_programs() {
    python3 .ci/platforms/manifest.py "$out/crate"
    CARGO_TARGET_DIR=$out/build CARGO_INCREMENTAL=0 CARGO_PROFILE_DEV_DEBUG=0 "$@" \
        --manifest-path "$out/crate/Cargo.toml" -Zbuild-std=std,panic_unwind,panic_abort,test \
        --features tokio,tracing --no-run --tests --message-format=json-render-diagnostics >"$out/$platform.json"
    python3 -c '
import json, sys
for line in open(sys.argv[1]):
    built = json.loads(line) if line.startswith("{") else {}
    if built.get("executable") and built["profile"]["test"]:
        print(built["target"]["name"], built["executable"])' "$out/$platform.json"
}

# skips PROGRAM: the lines "TEST REASON" of what this platform cannot do, from PLATFORM.skips.
skips() {
    [[ ! -f .ci/platforms/$platform.skips ]] ||
        awk -v program="$1" '$1 == program {sub(/^[^ ]+ +/, ""); print}' ".ci/platforms/$platform.skips"
}

# run_programs LIST RUNNER...: runs each "NAME PATH" of the file LIST below RUNNER, prints a line for each, all that
# a failing one said, and adds to the counts. Returns 1 if something failed.
run_programs() {
    local list=$1 failed=0 name path log code arguments test reason summary
    shift
    while read -r name path <&9; do
        log=$out/$platform.$name.log
        arguments=()
        while read -r test reason; do
            arguments+=(--skip "$test")
            printf 'skipped 1 %s\n' "$reason" >>"$counts"
        done < <(skips "$name")
        ((${#arguments[@]} == 0)) || arguments=(--exact "${arguments[@]}")
        code=0
        # Tests of `tokio` put large values on threads' stacks, which an unoptimised std copies often. (Not for
        # the others: it is the size of fibers' stacks, too.)
        if [[ $name == tokio ]]; then export RUST_MIN_STACK=8388608; else unset RUST_MIN_STACK; fi
        timeout --kill-after=10 900 "$@" "$path" "${arguments[@]}" >"$log" 2>&1 </dev/null || code=$?
        summary=$(sed -n 's/\r$//; s/^test result: [a-zA-Z]*\. \([0-9]*\) passed; \([0-9]*\) failed; \([0-9]*\) ignored.*/\1 \2 \3/p' "$log" | tail -n 1)
        if [[ -z $summary ]]; then # a harness of its own, or one that came to no end
            if ((code == 0)); then summary="1 0 0"; else summary="0 1 0"; fi
        fi
        read -r p f s <<<"$summary"
        printf 'passed %d\nfailed %d\n' "$p" "$f" >>"$counts"
        if ((s > 0)); then printf 'skipped %d are ignored\n' "$s" >>"$counts"; fi
        printf '  %-14s %4d passed%s%s\n' "$name" "$p" "$( ((f == 0)) || echo ", $f FAILED")" "$( ((${#arguments[@]} == 0)) || echo ", some left out")"
        if ((code != 0)); then
            failed=1
            sed 's/^/    | /' "$log" | tail -n 60
            say "$name ended with exit code $code; whole log: $log"
        fi
    done 9<"$list"
    return $failed
}

# record PLATFORM COLUMN HOW: for README's table (.ci/platforms/table): HOW is tested, built or checked.
record() {
    mkdir -p "$out/results"
    printf '%s\n' "$3" >"$out/results/$1,$2"
}
