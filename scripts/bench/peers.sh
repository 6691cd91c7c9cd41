#!/usr/bin/env bash
# Installs the peers that `make bench` measures beside Hydromesh, each into a Python environment of its own, at versions
# pinned here so that ratios of different days are of the same thing. Prints the path of each program that is there.
#
#   scripts/bench/peers.sh [dbt] [sqlmesh] [dagster] [prefect] [airflow]
#
#   XDG_CACHE_HOME        where the environments are (default ~/.cache)
set -euo pipefail

# dbt-core 1.12 fetches a prebuilt parser from outside of PyPI while it is installed; 1.11 is the newest that does not.
readonly dbt_version=1.11.16
readonly dbt_duckdb_version=1.11.1
readonly sqlmesh_version=0.236.4
readonly dagster_version=1.13.29
readonly prefect_version=3.9.1
# The operator that its tasks are made of comes in a package of its own.
readonly airflow_version=3.3.2
readonly airflow_standard_version=1.21.0
readonly home="${XDG_CACHE_HOME:-$HOME/.cache}/hydromesh/bench"

say() { printf 'bench: %s\n' "$*" >&2; }

# A peer that cannot be had is named and left out: our own figures do not depend on it.
install() {
    local name=$1 venv=$2
    shift 2
    [ -e "${venv}/.complete" ] && return
    say "fetching $* from PyPI (once)"
    rm -rf "${venv}"
    mkdir -p "${home}"
    if python3 -m venv "${venv}" >&2 \
        && timeout 600 "${venv}/bin/pip" install --quiet --disable-pip-version-check "$@" >&2; then
        touch "${venv}/.complete"
    else
        say "skipped: ${name} could not be installed, so there is no ratio to it"
        rm -rf "${venv}"
        return 1
    fi
}

if [ $# -eq 0 ]; then set -- dbt sqlmesh dagster prefect airflow; fi
for peer in "$@"; do
    case "${peer}" in
        dbt)
            venv="${home}/venv-dbt-${dbt_version}"
            if install dbt "${venv}" "dbt-core==${dbt_version}" "dbt-duckdb==${dbt_duckdb_version}"; then
                printf 'dbt=%s\n' "${venv}/bin/dbt"
            fi
            ;;
        sqlmesh)
            venv="${home}/venv-sqlmesh-${sqlmesh_version}"
            if install sqlmesh "${venv}" "sqlmesh==${sqlmesh_version}"; then
                printf 'sqlmesh=%s\n' "${venv}/bin/sqlmesh"
            fi
            ;;
        dagster)
            venv="${home}/venv-dagster-${dagster_version}"
            if install dagster "${venv}" "dagster==${dagster_version}"; then
                printf 'dagster=%s\n' "${venv}/bin/python"
            fi
            ;;
        prefect)
            venv="${home}/venv-prefect-${prefect_version}"
            if install prefect "${venv}" "prefect==${prefect_version}"; then
                printf 'prefect=%s\n' "${venv}/bin/python"
            fi
            ;;
        airflow)
            venv="${home}/venv-airflow-${airflow_version}"
            if install airflow "${venv}" "apache-airflow==${airflow_version}" "apache-airflow-providers-standard==${airflow_standard_version}"; then
                printf 'airflow=%s\n' "${venv}/bin/python"
            fi
            ;;
        *)
            say "no such peer: ${peer}"
            exit 2
            ;;
    esac
done
