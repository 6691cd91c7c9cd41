#!/bin/sh
# Compiles a folder of policies to a WebAssembly bundle, as `hydromesh up --policies BUNDLE` reads it.
#
#   scripts/build-policy-bundle.sh [FOLDER [BUNDLE]]
#
# Without arguments it rebuilds the bundle that the tests compare with regorus. Needs OPA 1.x, on the PATH or named by $OPA:
#   go install github.com/open-policy-agent/opa@latest
#
# Every deny and warn rule becomes an entrypoint, because only entrypoints can be asked. Compiling drops comments, so what
# the METADATA comments say goes into the bundle as data, at hydromesh.annotations. Tests stay outside.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
folder=$(CDPATH='' cd -- "${1:-$root/policies}" && pwd)
bundle=${2:-$root/tests/fixtures/policy-bundle/bundle.tar.gz}
case $bundle in /*) ;; *) bundle=$(pwd)/$bundle ;; esac
opa=${OPA:-opa}
command -v "$opa" >/dev/null || {
    echo "opa is not installed: go install github.com/open-policy-agent/opa@latest" >&2
    exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/policies"
(
    cd "$folder"
    find . -type f \( -name '*.rego' ! -name '*_test.rego' -o -name data.json \) | while read -r file; do
        case $file in
        */data.json) target=$work/$file ;;
        *) target=$work/policies/$file ;;
        esac
        mkdir -p "$(dirname "$target")"
        cp "$file" "$target"
    done
)
cd "$work"

entrypoints=$(
    find policies -name '*.rego' | sort | while read -r file; do
        package=$(sed -n 's/^package //p' "$file" | tr . /)
        sed -n 's/^\(deny\|warn\) .*/\1/p' "$file" | sort -u | while read -r rule; do
            printf -- '-e %s/%s ' "$package" "$rule"
        done
    done
)
test -n "$entrypoints" || {
    echo "$folder declares neither deny nor warn" >&2
    exit 1
}

mkdir -p hydromesh/annotations
"$opa" inspect --annotations --format json policies |
    awk '/^  "annotations": \[/ { print "["; inside = 1; next } inside && /^  \]/ { print "]"; exit } inside' \
        >hydromesh/annotations/data.json
test -s hydromesh/annotations/data.json || echo '[]' >hydromesh/annotations/data.json

mkdir -p "$(dirname "$bundle")"
# Entrypoints hold no blanks: the shell may split them.
# shellcheck disable=SC2086
"$opa" build --target wasm $entrypoints --output "$bundle" --bundle .
echo "wrote $bundle with $("$opa" version | head -n 1)"
