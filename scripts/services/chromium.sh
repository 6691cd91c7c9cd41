#!/usr/bin/env bash
# Prints the path of a Chromium for the check of the status site, and sees to it that Node is there to drive it.
#
#   HYDROMESH_CHROMIUM=$(scripts/services/chromium.sh) node scripts/oracles/open_site.mjs SITE
#
# What is missing comes from Debian's packages when this runs as root; otherwise it says what to install. Nothing is
# started here: the check starts the browser for itself, and ends it.
#
#   HYDROMESH_CHROMIUM   another Chromium or Chrome to use
set -euo pipefail

readonly node_major=18

say() { printf 'chromium: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

# It counts only if it runs: on Ubuntu a program of this name may be a pointer to a snap that is not there.
works() { command -v "$1" >/dev/null && "$1" --version >/dev/null 2>&1; }

# Prints nothing where there is none.
browser() {
    local name
    for name in "${HYDROMESH_CHROMIUM:-chromium}" chromium-browser google-chrome; do
        if works "${name}"; then command -v "${name}"; return; fi
    done
}

node_is_new() {
    local found
    found=$(node --version 2>/dev/null | sed -nE 's/^v([0-9]+)\..*/\1/p')
    [ "${found:-0}" -ge "${node_major}" ]
}

if [ -n "${HYDROMESH_CHROMIUM:-}" ]; then
    works "${HYDROMESH_CHROMIUM}" || fail "HYDROMESH_CHROMIUM is ${HYDROMESH_CHROMIUM}, which does not run"
fi

packages=()
[ -n "$(browser)" ] || packages+=(chromium)
# The first font in the site's list that Debian has. Without any, every letter is a box, and widths mean nothing.
if ! command -v fc-list >/dev/null || [ -z "$(fc-list 'Liberation Sans')" ]; then packages+=(fonts-liberation fontconfig); fi
node_is_new || packages+=(nodejs)

if [ ${#packages[@]} -gt 0 ]; then
    command -v apt-get >/dev/null || fail "missing; Debian calls the packages: ${packages[*]} (Node ${node_major} or newer)"
    [ "$(id -u)" -eq 0 ] || fail "missing; run: sudo apt-get install -y --no-install-recommends ${packages[*]}"
    say "installing ${packages[*]} (once)"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q >&2 </dev/null
    apt-get install -y -q --no-install-recommends "${packages[@]}" >&2 </dev/null
fi

node_is_new || fail "Node ${node_major} or newer is needed, this system's package is older; see https://nodejs.org/"
found=$(browser)
[ -n "${found}" ] || fail "the installed chromium does not run here"
printf '%s\n' "${found}"
