#!/usr/bin/env bash
# Measures what docs/benchmarks.md promises and prints one table at the end. Nothing here is a test: a figure that is missed is
# printed as such, and the exit code stays 0.
#
#   scripts/bench/run.sh [--binary PATH] [--no-peers] [FIGURE...]
#
# Figures, all of them without a choice:
#   start     hydromesh --help
#   check     check and plan of 1,000 products, beside dbt and SQLMesh
#   memory    resident memory of `hydromesh up` on the example mesh
#   lookups   look-ups of features, idle and during a backfill
#   react     a webhook to its commit's decision, and a publication to the start of its reader
#   loop      steps that do nothing, beside Dagster, Prefect and Airflow; a plan of 100,000 partitions; 10,000 idle products
#
#   HYDROMESH_BENCH_ROUNDS  rounds of each figure instead of its own number
#   CARGO_TARGET_DIR        where the release binary is, without --binary
#
# Each figure is a script of its own beside this one and writes rows as JSON lines on stdout, words on stderr. A new figure is a
# script that prints such rows (`row` in common.py), a name in `figures`, a line in `measure` and a section in docs/benchmarks.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/hydromesh"
figures=(start check memory lookups react loop)
binary="${CARGO_TARGET_DIR:-${cache}/target}/release/hydromesh"
peers=yes
chosen=()

say() { printf 'bench: %s\n' "$*" >&2; }

while [ $# -gt 0 ]; do
    case "$1" in
        --binary)
            [ $# -ge 2 ] || { say "--binary needs a path"; exit 2; }
            binary=$2
            shift 2
            ;;
        --no-peers)
            peers=no
            shift
            ;;
        *)
            case " ${figures[*]} " in
                *" $1 "*) chosen+=("$1") ;;
                *) say "no such figure: $1; there are: ${figures[*]}"; exit 2 ;;
            esac
            shift
            ;;
    esac
done
[ ${#chosen[@]} -gt 0 ] || chosen=("${figures[@]}")
[ -x "${binary}" ] || { say "${binary} is not there: run make bench, or name one with --binary"; exit 1; }
binary=$(realpath "${binary}")
# A dev build is good for trying the scripts; its figures say nothing.
case "${binary}" in */release/*) ;; *) say "warning: ${binary} does not look like a release build" ;; esac

# The scripts import one another; what Python compiles of them does not belong into the clone.
export PYTHONDONTWRITEBYTECODE=1
mkdir -p "${cache}/bench"
rows="${cache}/bench/rows.jsonl"
: >"${rows}"
rounds=()
if [ -n "${HYDROMESH_BENCH_ROUNDS:-}" ]; then rounds=(--rounds "${HYDROMESH_BENCH_ROUNDS}"); fi

# Options that name the installed peers, for those that a figure has.
peer_options() {
    [ "${peers}" = yes ] || return 0
    ./peers.sh "$@" | sed 's/^/--/' | tr '=' '\n'
}

measure() {
    local options=()
    case "$1" in
        start) mapfile -t options < <(peer_options dbt) ;;
        check) mapfile -t options < <(peer_options dbt sqlmesh) ;;
        loop) mapfile -t options < <(peer_options dagster prefect airflow) ;;
        memory | lookups | react) ;;
    esac
    "./$1.py" --binary "${binary}" "${rounds[@]}" "${options[@]}" >>"${rows}"
}

say "$("${binary}" --version), $(nproc) cores, $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo), load $(cut -d' ' -f1-3 /proc/loadavg)"
for figure in "${chosen[@]}"; do
    say "${figure}"
    measure "${figure}"
done
./table.py "${rows}"
