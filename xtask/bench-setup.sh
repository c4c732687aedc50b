#!/usr/bin/env bash
# Installs the programs that `cargo xtask bench` compares with. The only part of the benchmark that
# contacts the internet: Debian's packages and the proxy of Go modules.
set -euo pipefail
cd "$(dirname "$0")/.."

tools=${1:-${CARGO_TARGET_DIR:-target}/bench/tools}
# Syncthing 2.1.3. By its commit, since its module has no path of a second version.
syncthing=github.com/syncthing/syncthing/cmd/syncthing@946e2b83a1f6

mkdir -p "$tools/bin"
tools=$(cd "$tools" && pwd)

missing=()
want() { command -v "$1" >/dev/null || missing+=("$2"); }
want rsync rsync
want unison unison
want ip iproute2
want tc iproute2
want python3 python3-minimal

go=$(command -v go || true)
if [ -z "$go" ] && [ -x /usr/local/go/bin/go ]; then
    go=/usr/local/go/bin/go
fi
if [ ! -x "$tools/bin/syncthing" ]; then
    # An own module cache, writable, so that removing the directory removes all of it. Without an answer
    # in time, or with a no, Debian's package has to do; a no is not asked for again.
    if [ -z "$go" ] || [ -e "$tools/no-syncthing" ] ||
        ! GOBIN="$tools/bin" GOPATH="$tools/go" GOFLAGS=-modcacherw \
            timeout 900 nice -n 5 "$go" install -tags noassets "$syncthing"; then
        touch "$tools/no-syncthing"
        printf 'Syncthing 2 cannot be built here; the benchmark takes the package\n' >&2
        want syncthing syncthing
    fi
fi

if [ ${#missing[@]} -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        printf 'missing, and to be installed by hand: %s\n' "${missing[*]}" >&2
    else
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "${missing[@]}"
    fi
fi

for program in rsync unison syncthing; do
    found=$(PATH="$tools/bin:$PATH" command -v "$program" || true)
    printf '%s: %s\n' "$program" "${found:-not there}"
done
