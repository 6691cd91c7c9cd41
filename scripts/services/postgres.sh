#!/usr/bin/env bash
# Starts, stops or shows a real PostgreSQL server (loopback only) for the tests of the ledger on a server.
#
#   scripts/services/postgres.sh start|stop|status
#
# Needs the server's programs: on Debian, apt-get install postgresql. The data lies in a folder of its own and is made anew
# at each start; a server that is there already is not touched. `start` prints the setting that the tests read:
#
#   eval "$(scripts/services/postgres.sh start)" && cargo test --lib store::postgres
#
#   HYDROMESH_POSTGRES_PORT   port of the server (default 15432)
#   XDG_CACHE_HOME            where the log is (default ~/.cache)
set -euo pipefail

readonly port="${HYDROMESH_POSTGRES_PORT:-15432}"
readonly address="postgres://hydromesh:hydromesh@127.0.0.1:${port}/hydromesh"
readonly home="${XDG_CACHE_HOME:-$HOME/.cache}/hydromesh/services/postgres"
readonly log="${home}/server-${port}.log"
# The server refuses to run as root, and another user cannot enter root's home.
readonly data="/tmp/hydromesh-postgres-$(id -u)-${port}"

say() { printf 'postgres: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

programs() {
    local newest
    if newest=$(find /usr/lib/postgresql -path '*/bin/initdb' 2>/dev/null | sort -V | tail -n 1) && [ -n "${newest}" ]; then
        dirname "${newest}"
    elif command -v initdb >/dev/null; then
        dirname "$(command -v initdb)"
    else
        return 1
    fi
}

install() {
    programs >/dev/null && return
    command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ] ||
        fail "the server's programs are missing; on Debian: apt-get install postgresql"
    say "installing postgresql"
    export DEBIAN_FRONTEND=noninteractive
    # The package would start a server of its own; ours is enough.
    mkdir -p /etc/postgresql-common
    [ -e /etc/postgresql-common/createcluster.conf ] ||
        echo 'create_main_cluster = false' >/etc/postgresql-common/createcluster.conf
    { apt-get update -q && apt-get install -y -q --no-install-recommends postgresql; } </dev/null >&2
    programs >/dev/null || fail "postgresql was installed, but its programs are not in /usr/lib/postgresql"
}

# Runs one of the server's programs, as another user where we are root.
as_server() {
    local program="$1"
    shift
    if [ "$(id -u)" -eq 0 ]; then
        (cd / && setpriv --reuid="$(id -u "$owner")" --regid="$(id -g "$owner")" --clear-groups "$bin/$program" "$@")
    else
        "$bin/$program" "$@"
    fi
}

is_running() { [ -e "${data}/postmaster.pid" ] && as_server pg_ctl -D "${data}" status >/dev/null 2>&1; }

prepare() {
    bin=$(programs) || fail "not installed"
    owner=postgres
    id -u "$owner" >/dev/null 2>&1 || owner=nobody
}

settings() { printf 'export HYDROMESH_TEST_POSTGRES=%q\n' "${address}"; }

start() {
    install
    prepare
    if is_running; then
        say "is running already"
        settings
        return
    fi
    (exec 3<>"/dev/tcp/127.0.0.1/${port}") 2>/dev/null &&
        fail "port ${port} is taken by another program; choose one with HYDROMESH_POSTGRES_PORT"
    rm -rf "${data}"
    mkdir -p "${home}"
    install_folder
    echo hydromesh >"${data}.password"
    as_server initdb -D "${data}" --auth-local=trust --auth-host=scram-sha-256 --username=hydromesh \
        --pwfile="${data}.password" --encoding=UTF8 --locale=C >"${log}" 2>&1 ||
        { tail -n 20 "${log}" >&2; fail "initdb failed"; }
    rm -f "${data}.password"
    as_server pg_ctl -D "${data}" --wait --timeout=60 -l "${data}/server.log" \
        -o "-c listen_addresses=127.0.0.1 -c port=${port} -c unix_socket_directories=${data} -c max_connections=300" \
        start >>"${log}" 2>&1 </dev/null || { tail -n 20 "${data}/server.log" >&2; fail "the server did not start"; }
    as_server psql -q -h "${data}" -p "${port}" -U hydromesh -d postgres -c 'CREATE DATABASE hydromesh' >&2
    say "$("$bin/postgres" --version) is ready at 127.0.0.1:${port}"
    settings
}

install_folder() {
    mkdir -p "${data}"
    [ "$(id -u)" -ne 0 ] || chown "$owner" "${data}"
    chmod 700 "${data}"
}

stop() {
    prepare
    if ! is_running; then
        say "is not running"
        return
    fi
    as_server pg_ctl -D "${data}" --mode=immediate --wait stop >&2
    rm -rf "${data}"
    say "stopped"
}

status() {
    prepare
    if is_running; then
        printf '%s\n' "127.0.0.1:${port}"
    else
        say "not running"
        return 3
    fi
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    status) status ;;
    *)
        printf 'usage: %s start|stop|status\n' "$0" >&2
        exit 2
        ;;
esac
