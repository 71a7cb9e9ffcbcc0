#!/usr/bin/env bash
# REST by curl alone. What is compared is the text of the answers: what JSON leaves open matters here, such as numbers as strings.
# The environment is that of common.py.
set -uo pipefail

token=$CLIENT_TOKEN
base="https://$CLIENT_HTTP"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

ok() { printf 'ok curl: %s\n' "$1"; }
no() {
    printf 'FAILED curl: %s; found: %s %s\n' "$1" "$status" "$body"
    failed=1
}

# call METHOD PATH [curl's arguments]: sets status, body and headers.
call() {
    local method=$1 path=$2
    shift 2
    status=$(curl --silent --show-error --max-time 60 --cacert "$CLIENT_CA" --request "$method" \
        --header "Authorization: Bearer $token" --header 'Content-Type: application/json' \
        --dump-header "$scratch/headers" --output "$scratch/body" --write-out '%{http_code}' "$@" "$base$path")
    body=$(cat "$scratch/body" 2>/dev/null)
    headers=$(tr -d '\r' <"$scratch/headers" 2>/dev/null)
}

# has WHAT STATUS TEXT...: the last answer has this status and all these texts.
has() {
    local what=$1 expected=$2 text
    shift 2
    [ "$status" = "$expected" ] || { no "$what"; return; }
    for text in "$@"; do
        [[ $body == *"$text"* ]] || { no "$what"; return; }
    done
    ok "$what"
}

lacks() { if [[ $body == *"$2"* ]]; then no "$1"; else ok "$1"; fi; }

# field NAME: the first text of that name in the last answer.
field() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" <<<"$body" | head -n 1; }
# The id of an operation is its first field; that of a snapshot in an operation is in its metadata.
operation_id() { sed -n 's/^{"id":"\([^"]*\)".*/\1/p' <<<"$body"; }

disk() { head -c "$(($2 * 1024 * 1024))" /dev/urandom >"$CLIENT_DISKS/$1.raw"; }

until_done() {
    local deadline=$((SECONDS + 60))
    while [ "$SECONDS" -lt "$deadline" ]; do
        call GET "/operations/$1"
        [[ $body == *'"done":true'* ]] && return
        sleep 0.05
    done
    no "operation $1 comes to an end"
}

disk curl-life 2
call POST /compute/v1/snapshots --data "{\"folderId\":\"$CLIENT_FOLDER\",\"diskId\":\"curl-life\",\"name\":\"curl-life\",\"labels\":{\"by\":\"curl\"}}"
has "create answers 200 with an operation that says done: false" 200 '"done":false' '"description":"Create snapshot"' \
    "\"createdBy\":\"$CLIENT_CALLER\"" '"@type":"type.googleapis.com/yandex.cloud.compute.v1.CreateSnapshotMetadata"'
lacks "and has neither error nor response yet" '"response"'
operation=$(operation_id) snapshot=$(field snapshotId)
until_done "$operation"
has "it ends with the snapshot, sizes as strings" 200 '"done":true' '"@type":"type.googleapis.com/yandex.cloud.compute.v1.Snapshot"' \
    '"diskSize":"2097152"' '"status":"READY"'
call GET "/compute/v1/snapshots/$snapshot"
has "get" 200 "\"id\":\"$snapshot\"" '"name":"curl-life"' '"diskSize":"2097152"' '"labels":{"by":"curl"}'
if [[ $(field createdAt) =~ ^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}(\.[0-9]{3,9})?Z$ ]]; then ok "times are RFC 3339"; else no "times are RFC 3339"; fi
call GET "/compute/v1/snapshots?folderId=$CLIENT_FOLDER&pageSize=1000&filter=name%3D%22curl-life%22"
has "list with a filter" 200 "\"id\":\"$snapshot\""
call PATCH "/compute/v1/snapshots/$snapshot" --data '{"updateMask":"name,labels","name":"curl-other","description":"not in the mask"}'
has "update" 200 '"description":"Update snapshot"'
until_done "$(operation_id)"
has "changes what its mask names, and nothing else" 200 '"name":"curl-other"'
lacks "such as the description" 'not in the mask'
call DELETE "/compute/v1/snapshots/$snapshot"
has "delete" 200 '"description":"Delete snapshot"'
until_done "$(operation_id)"
has "ends with Empty" 200 '"@type":"type.googleapis.com/google.protobuf.Empty"'
call GET "/compute/v1/snapshots/$snapshot"
has "after that get is 404 with a Status" 404 '"code":5' '"details":[' '"reason":"NOT_FOUND"'
call GET "/compute/v1/snapshots/$snapshot/operations"
has "its operations are still listed" 200 'Delete snapshot' 'Update snapshot' 'Create snapshot'

for method in GET POST; do
    name="curl-cancelled"
    disk "$name" 64
    call POST /compute/v1/snapshots --data "{\"folderId\":\"$CLIENT_FOLDER\",\"diskId\":\"$name\"}"
    operation=$(operation_id) snapshot=$(field snapshotId)
    call GET "/operations/$operation"
    has "an operation under way says done: false" 200 '"done":false'
    call "$method" "/operations/$operation:cancel"
    has "cancel by $method shows the operation" 200 "\"id\":\"$operation\""
    until_done "$operation"
    has "and it ends with CANCELLED" 200 '"error":{"code":1,'
    call GET "/compute/v1/snapshots/$snapshot"
    has "and the snapshot is gone" 404 '"code":5'
done

disk curl-fails 64
call POST /compute/v1/snapshots --data "{\"folderId\":\"$CLIENT_FOLDER\",\"diskId\":\"curl-fails\"}"
operation=$(operation_id) snapshot=$(field snapshotId)
rm "$CLIENT_DISKS/curl-fails.raw"
until_done "$operation"
has "a disk that vanishes: the operation ends with an error" 200 '"error":{"code":'
call GET "/compute/v1/snapshots/$snapshot"
has "and the snapshot is gone" 404 '"code":5'

disk curl-key 1
create="{\"folderId\":\"$CLIENT_FOLDER\",\"diskId\":\"curl-key\"}"
call POST /compute/v1/snapshots --header 'Idempotency-Key: 5f0c2f2e-curl' --data "$create"
operation=$(operation_id) snapshot=$(field snapshotId)
call POST /compute/v1/snapshots --header 'idempotency-key: 5f0c2f2e-curl' --data "$create"
has "the same Idempotency-Key gives the same operation" 200 "\"id\":\"$operation\""
until_done "$operation"
call DELETE "/compute/v1/snapshots/$snapshot"
until_done "$(operation_id)"

call POST /compute/v1/snapshots --data '{"folderId":'
has "malformed JSON is 400" 400 '"code":3'
call POST /compute/v1/snapshots --data '{"folder":"x"}'
has "an unknown field is 400" 400 '"code":3' '"field":"folder"'
call POST /compute/v1/snapshots --data '{"name":"No Name"}'
has "violations are all named" 400 '"@type":"type.googleapis.com/google.rpc.BadRequest"' '"field":"folder_id"' '"field":"disk_id"' '"field":"name"'
call GET /operations/no-such-operation --header 'X-Request-Id: asked-2'
has "an unknown operation is 404" 404 '"requestId":"asked-2"'
if grep -qi '^x-request-id: asked-2$' <<<"$headers"; then ok "the id of a request comes back"; else no "the id of a request comes back"; fi
token=no-such-token
call GET "/compute/v1/snapshots?folderId=$CLIENT_FOLDER"
has "a wrong token is 401" 401 '"code":16'
token=$CLIENT_TOKEN
call GET "/compute/v1/snapshots" --get --data-urlencode "folderId=$CLIENT_FOLDER" --data-urlencode "orderBy=createdAt desc"
has "a query that curl escapes" 200 '{'
call GET /endpoints
has "endpoints" 200 "\"id\":\"compute\"" "\"address\":\""
call GET /openapi.json
has "the OpenAPI document" 200 '{'

exit "$failed"
