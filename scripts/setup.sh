#!/usr/bin/env bash
# Checks that this machine can build Hydromesh; installs what is missing where it may (root on Debian or Ubuntu) and
# otherwise says exactly what to install. Quiet when nothing is missing. Speaks on stderr only.
#
#   scripts/setup.sh [demo|test|bench]
set -euo pipefail
exec >&2

purpose=${1:-test}
min_rust=1.95
export PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
target=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/hydromesh/target}

say() { printf '%s\n' "$*"; }

# Rust first: it is the one thing we never install, because where it comes from is the owner's choice.
if ! command -v cargo >/dev/null; then
    say "setup: Rust is missing. Install it from https://rustup.rs and run this again."
    say "       (Debian's own package is too old: $min_rust or newer is needed.)"
    exit 1
fi
# Asked for in the clone, so that a rustup override counts; the older of the two versions sorts first.
rust=$(cargo --version | cut -d' ' -f2)
if [ "$(printf '%s\n%s\n' "$min_rust" "$rust" | sort -V | head -n1)" != "$min_rust" ]; then
    say "setup: Rust $rust is too old, $min_rust or newer is needed."
    if command -v rustup >/dev/null; then say "       Run: rustup update stable"; else say "       Install it from https://rustup.rs"; fi
    exit 1
fi

# What the build scripts of our dependencies call, and what they link. No cmake, no Python, no libcurl, no libsasl:
# librdkafka is configured without them, and libgit2 and SQLite are compiled from the sources in their crates.
missing=()   # names to show
packages=()  # Debian packages that bring them
need() { missing+=("$1"); packages+=("$2"); }

command -v cc >/dev/null || need "a C compiler (cc)" build-essential
command -v c++ >/dev/null || need "a C++ compiler (c++)" build-essential
command -v make >/dev/null || need "make" build-essential
if command -v pkg-config >/dev/null; then
    pkg-config --exists openssl || need "the OpenSSL headers" libssl-dev
    pkg-config --exists zlib || need "the zlib headers" zlib1g-dev
else
    need "pkg-config" pkg-config
    [ -e /usr/include/openssl/ssl.h ] || need "the OpenSSL headers" libssl-dev
    [ -e /usr/include/zlib.h ] || need "the zlib headers" zlib1g-dev
fi
# The tests compare what we read from repositories with what git says; the benchmarks make repositories.
if [ "$purpose" != demo ]; then command -v git >/dev/null || need "git" git; fi
# The benchmarks are Python scripts, and their peers are Python programs in environments of their own.
if [ "$purpose" = bench ]; then
    command -v python3 >/dev/null || need "Python 3" python3
    python3 -c 'import ensurepip' 2>/dev/null || need "Python's venv" python3-venv
fi

if [ ${#missing[@]} -gt 0 ]; then
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    say "setup: missing: $(printf '%s, ' "${missing[@]}" | sed 's/, $//')"
    if ! command -v apt-get >/dev/null; then
        say "       Install them with this system's package manager. Debian calls the packages: ${packages[*]}"
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        say "       Run: sudo apt-get install -y ${packages[*]}"
        exit 1
    fi
    say "setup: installing ${packages[*]}"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q </dev/null
    apt-get install -y -q --no-install-recommends "${packages[@]}" </dev/null
fi

if [ "$purpose" = bench ]; then profile=release; else profile=debug; fi
binary=$target/$profile/hydromesh
if [ ! -x "$binary" ]; then
    say "Building Hydromesh and its libraries in $target"
    say "  what: DataFusion, Delta Lake, Iceberg, librdkafka, SQLite, libgit2 and two policy engines (about 800 crates)"
    if [ "$purpose" = bench ]; then
        say "  time: the release profile takes longer than the dev profile, whose first build is 15 to 20 minutes on two cores."
    else
        say "  time: 15 to 20 minutes on two cores, the first time only; seconds after that. Disk: about 8 GB."
    fi
    say "  meanwhile: docs/demo-site/ holds a recorded run and the status site that it built"
    mkdir -p "$target"
    free_mib=$(df -Pm "$target" | awk 'NR == 2 { print $4 }')
    if [ "$free_mib" -lt 10000 ]; then
        say "  warning: only $free_mib MiB are free there; set CARGO_TARGET_DIR to a folder on a larger disk"
    fi
elif [ "$purpose" = demo ]; then
    say "A recorded run and the status site that it built are in docs/demo-site/"
fi
