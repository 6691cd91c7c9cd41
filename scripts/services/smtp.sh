#!/usr/bin/env bash
# Starts, stops or shows a real SMTP server (aiosmtpd, loopback only) for the tests of mails.
#
#   scripts/services/smtp.sh start|stop|status
#
# Needs Python 3 with venv: the server comes from PyPI into a folder of its own. It accepts every mail and files it in
# a Maildir; nothing is sent on. `start` prints the two settings that the tests read:
#
#   eval "$(scripts/services/smtp.sh start)" && cargo test --lib notify::
#
#   HYDROMESH_SMTP_PORT   port of the server (default 12525)
#   XDG_CACHE_HOME        where the folder is (default ~/.cache)
set -euo pipefail

readonly version=1.4.6
readonly port="${HYDROMESH_SMTP_PORT:-12525}"
readonly address="127.0.0.1:${port}"
readonly home="${XDG_CACHE_HOME:-$HOME/.cache}/hydromesh/services/smtp"
readonly venv="${home}/venv-${version}"
readonly run="${home}/run-${port}"
readonly maildir="${run}/Maildir"
readonly log="${run}/server.log"
readonly pid_file="${run}/server.pid"
readonly wait_seconds=20

say() { printf 'smtp: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# The process is ours only if it still serves our folder: process ids are reused.
running_pid() {
    local pid
    [ -s "${pid_file}" ] || return 1
    pid=$(cat "${pid_file}")
    [ -r "/proc/${pid}/cmdline" ] || return 1
    tr '\0' ' ' <"/proc/${pid}/cmdline" | grep -qF "${maildir}" || return 1
    printf '%s\n' "${pid}"
}

install() {
    [ -e "${venv}/.complete" ] && return
    command -v python3 >/dev/null || fail "python3 is missing; on Debian: apt-get install python3 python3-venv"
    say "fetching aiosmtpd ${version} from PyPI (once)"
    mkdir -p "${home}"
    python3 -m venv "${venv}" >&2 || fail "python3 lacks venv; on Debian: apt-get install python3-venv"
    "${venv}/bin/pip" install --quiet --disable-pip-version-check "aiosmtpd==${version}" >&2
    touch "${venv}/.complete"
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/${port}") 2>/dev/null; }

# A listening port is not a mail server: read its greeting.
ready() {
    local greeting
    { exec 3<>"/dev/tcp/127.0.0.1/${port}"; } 2>/dev/null || return 1
    read -r -t 2 greeting <&3 || return 1
    exec 3>&-
    [ "${greeting:0:3}" = 220 ]
}

settings() {
    printf 'export HYDROMESH_TEST_SMTP=%q HYDROMESH_TEST_MAILDIR=%q\n' "${address}" "${maildir}"
}

start() {
    if running_pid >/dev/null; then
        say "is running already"
        settings
        return
    fi
    port_open && fail "port ${port} is taken by another program; choose one with HYDROMESH_SMTP_PORT"
    install
    rm -rf "${run}"
    mkdir -p "${run}"
    "${venv}/bin/python" -m aiosmtpd -n -l "${address}" -c aiosmtpd.handlers.Mailbox "${maildir}" \
        >>"${log}" 2>&1 </dev/null &
    printf '%s\n' "$!" >"${pid_file}"
    disown
    local waited=0
    until ready; do
        running_pid >/dev/null || { tail -n 20 "${log}" >&2; fail "the server ended; its log is ${log}"; }
        [ "${waited}" -lt $((wait_seconds * 5)) ] || fail "the server was not ready within ${wait_seconds} s; see ${log}"
        sleep 0.2
        waited=$((waited + 1))
    done
    say "aiosmtpd ${version} is ready at ${address}; mails are in ${maildir}"
    settings
}

stop() {
    local pid waited=0
    if ! pid=$(running_pid); then
        say "is not running"
        rm -f "${pid_file}"
        return
    fi
    kill "${pid}"
    while kill -0 "${pid}" 2>/dev/null; do
        if [ "${waited}" -ge 50 ]; then
            say "did not stop within 10 s and is killed"
            kill -9 "${pid}" 2>/dev/null || true
            break
        fi
        sleep 0.2
        waited=$((waited + 1))
    done
    rm -f "${pid_file}"
    say "stopped"
}

status() {
    local pid
    if pid=$(running_pid) && ready; then
        say "running with process id ${pid}"
        printf '%s\n' "${address}"
    elif [ -n "${pid:-}" ]; then
        say "running with process id ${pid} but not answering at ${address}"
        return 1
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
