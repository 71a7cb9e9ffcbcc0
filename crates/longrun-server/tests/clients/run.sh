#!/usr/bin/env bash
# The real clients against a real server: Yandex Cloud's SDKs for Python and Node, google-api-core, reflection, curl.
#
#   run.sh [path of the longrun program]      (else target/debug/longrun)
#
# Needs bash and openssl, or python3. Prints a line for each check, SKIPPED for a client that cannot be had here, and at last
# `N passed, N failed`. Fails if a check did; with CLIENTS_REQUIRED=1 also if a client was skipped. What it installs is kept in
# target/clients, or in CLIENTS_CACHE.
set -uo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../../.." && pwd)
longrun=${1:-$root/target/debug/longrun}
cache=${CLIENTS_CACHE:-$root/target/clients}

[ -x "$longrun" ] || { echo "there is no program $longrun: build it first" >&2; exit 2; }
mkdir -p "$cache"
work=$(mktemp -d)
server=
# Ends what this script started, and nothing else.
finish() {
    [ -z "$server" ] || kill -KILL "$server" 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

skips=0
skip() {
    printf 'SKIPPED: %s\n' "$*" | tee -a "$work/log"
    skips=$((skips + 1))
}
why() { # LOG: its first lines that tell of an error, in one.
    grep -iE 'error|warning' "$1" | head -n 3 | tr '\n' ' '
}
bounded() { # SECONDS COMMAND...
    if command -v timeout >/dev/null; then timeout --kill-after=10 "$@"; else "${@:2}"; fi
}

# --- What the clients need: made once for each list of versions, under another name first, so that whoever finds it finds it
# whole, also while another run makes it, too.

digest() { cat "$@" | cksum | tr ' ' '-'; }

# keep NEW PLACE: NEW becomes PLACE, unless another run was first. If that one was so in between, NEW has moved into PLACE.
keep() {
    [ -d "$2" ] || mv "$1" "$2"
    rm -rf "$1" "${2:?}/${1##*/}"
}

python=
get_python() {
    command -v python3 >/dev/null || { skip "the clients in Python: there is no python3"; return; }
    local place new
    place="$cache/python-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$(digest "$here/requirements.txt")"
    if [ ! -d "$place" ]; then
        new="$place.$$"
        if ! { python3 -m venv "$new" &&
            bounded 600 "$new/bin/python" -m pip install --quiet --disable-pip-version-check --retries 1 \
                --requirement "$here/requirements.txt"; } >"$work/pip.log" 2>&1; then
            rm -rf "$new"
            skip "the clients in Python could not be installed: $(why "$work/pip.log")"
            return
        fi
        keep "$new" "$place"
    fi
    python="$place/bin/python"
}

modules=
get_node() {
    command -v node >/dev/null && command -v npm >/dev/null || { skip "the client in Node: there is no node, or no npm"; return; }
    local place new
    place="$cache/node-$(digest "$here/package.json")"
    if [ ! -d "$place" ]; then
        new="$place.$$"
        mkdir "$new" && cp "$here/package.json" "$new"
        # No lock file: it would name the registry of whoever wrote it.
        if ! (cd "$new" && bounded 600 npm install --ignore-scripts --no-package-lock --no-audit --no-fund \
            --fetch-retries=1 --loglevel=error) >"$work/npm.log" 2>&1; then
            rm -rf "$new"
            skip "the client in Node could not be installed: $(why "$work/npm.log")"
            return
        fi
        keep "$new" "$place"
    fi
    modules="$place/node_modules"
}

get_python
get_node

# --- A certificate for localhost that nobody else has signed.

make_certificate() {
    if command -v openssl >/dev/null; then
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
            -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$work/key.pem" -out "$work/cert.pem" 2>"$work/openssl.log"
    else
        # It comes with what the SDK needs.
        [ -n "$python" ] && "$python" "$here/certificate.py" "$work/cert.pem" "$work/key.pem"
    fi
}
make_certificate || { skip "everything: no certificate can be made: there is neither openssl nor a Python for it"; echo "0 passed, 0 failed"; exit "${CLIENTS_REQUIRED:-0}"; }

# --- The server.

mkdir "$work/disks"
export CLIENT_TOKEN=token-of-alice-3141592653 CLIENT_CALLER=ajealice CLIENT_FOLDER=b1gclients
export CLIENT_CA="$work/cert.pem" CLIENT_DISKS="$work/disks"
export CLIENT_STRANGER=token-of-bob-2718281828
printf '%s %s %s\n' "$CLIENT_TOKEN" "$CLIENT_CALLER" "$CLIENT_FOLDER" "$CLIENT_STRANGER" ajebob b1gother >"$work/tokens"
mkfifo "$work/ready"
# A clean environment: no variable of whoever runs this shall turn a flag of the server.
env -i RUST_LOG=info "$longrun" serve --data "$work/data" --disks "$work/disks" --grpc 127.0.0.1:0 --http 127.0.0.1:0 \
    --tls-cert "$work/cert.pem" --tls-key "$work/key.pem" --auth-token-file "$work/tokens" --copy-rate 8388608 \
    >"$work/ready" 2>"$work/server.log" &
server=$!
ready=
read -r -t 60 ready <"$work/ready" || true
if [[ ! $ready =~ ^ready\ grpc=127\.0\.0\.1:([0-9]+)\ http=127\.0\.0\.1:([0-9]+)$ ]]; then
    echo "FAILED: the server did not become ready; it said: $ready"
    tail -n 20 "$work/server.log"
    echo "0 passed, 1 failed"
    exit 1
fi
export CLIENT_GRPC="localhost:${BASH_REMATCH[1]}" CLIENT_HTTP="localhost:${BASH_REMATCH[2]}"

# --- The clients.

# client NAME COMMAND...: its lines go to the log, where they are counted; its noise is shown when it fails.
client() {
    local name=$1 code
    shift
    bounded 300 "$@" 2>"$work/noise" | tee "$work/lines"
    code=${PIPESTATUS[0]}
    cat "$work/lines" >>"$work/log"
    if [ "$code" != 0 ]; then
        sed "s/^/    /" "$work/noise" >&2
        grep -q '^FAILED' "$work/lines" || echo "FAILED $name: it ended with code $code" | tee -a "$work/log"
    fi
}

if [ -n "$python" ]; then
    export PYTHONDONTWRITEBYTECODE=1
    client python-sdk "$python" "$here/python_sdk.py"
    client google-api-core "$python" "$here/google_lro.py"
    client reflection "$python" "$here/reflection.py"
fi
if [ -n "$modules" ]; then
    # Node looks for modules beside the script.
    cp "$here/node_sdk.mjs" "$work" && ln -s "$modules" "$work/node_modules"
    client node-sdk node "$work/node_sdk.mjs"
fi
if command -v curl >/dev/null; then
    client curl bash "$here/rest.sh"
else
    skip "curl: it is not here"
fi

# --- The end: nothing is left, and the server goes when it is told.

report() { if [ "$2" = 0 ]; then echo "ok $1"; else echo "FAILED $1; found: $3"; fi | tee -a "$work/log"; }

if ! grep -q '^FAILED' "$work/log"; then
    left=$(find "$work/data/chunks" -type f ! -name owner | head -n 5)
    [ -z "$left" ]
    report "everything was deleted, failed or cancelled: no file is left in the chunk folder, but that which says whose it is" $? "$left"
fi
kill -TERM "$server"
wait "$server"
report "the server ends with code 0 when it is told to" $? "see its log"
server=

passed=$(grep -c '^ok ' "$work/log")
failed=$(grep -c '^FAILED' "$work/log")
[ "$failed" = 0 ] || { echo "the end of the server's log:" >&2; tail -n 20 "$work/server.log" >&2; }
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && { [ "$skips" = 0 ] || [ "${CLIENTS_REQUIRED:-0}" = 0 ]; }
