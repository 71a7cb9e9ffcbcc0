// Yandex Cloud's Node SDK, unmodified, over TLS with a certificate of our own. The environment is that of common.py.

import { randomBytes, randomUUID } from 'node:crypto';
import { readFileSync, unlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import sdk from '@yandex-cloud/nodejs-sdk';

const { Session, cloudApi, decodeMessage, serviceClients, waitForOperation } = sdk;
const { snapshot: { Snapshot_Status }, snapshot_service: requests } = cloudApi.compute;
const { operation_service: operationRequests } = cloudApi.operation;
const {
  CLIENT_GRPC: address, CLIENT_CA: ca, CLIENT_DISKS: disks, CLIENT_TOKEN: iamToken, CLIENT_FOLDER: folderId, CLIENT_CALLER: caller,
} = process.env;

const PATIENCE_MS = 60_000;
const MIB = 1024 * 1024;
// Status codes of gRPC.
const CANCELLED = 1, INVALID_ARGUMENT = 3, NOT_FOUND = 5, FAILED_PRECONDITION = 9;

const session = new Session({ iamToken, ssl: { rootCerts: readFileSync(ca) }, pollInterval: 100 });
const snapshots = session.client(serviceClients.SnapshotServiceClient, address);
const operations = session.client(serviceClients.OperationServiceClient, address);

let anyFailed = false;

function check(what, holds, found) {
  if (holds) {
    console.log(`ok node-sdk: ${what}`);
  } else {
    anyFailed = true;
    console.log(`FAILED node-sdk: ${what}; found: ${JSON.stringify(found)}`);
  }
}

// Some checks that need each other. An error ends them, and counts as a failed check.
async function part(what, work) {
  try {
    await work();
  } catch (error) {
    console.error(error);
    check(what, false, String(error?.stack ?? JSON.stringify(error)));
  }
}

function disk(name, mebibytes = 1) {
  const image = path.join(disks, `${name}.raw`);
  const pieces = Array.from({ length: mebibytes }, () => Buffer.alloc(MIB, randomBytes(64 * 1024)));
  writeFileSync(image, Buffer.concat(pieces));
  return image;
}

const wait = (operation) => waitForOperation(operation, session, PATIENCE_MS, address);
const create = (diskId, fields = {}, options = {}) =>
  snapshots.create(requests.CreateSnapshotRequest.fromPartial({ folderId, diskId, name: diskId, ...fields }), options);
const get = (snapshotId) => snapshots.get(requests.GetSnapshotRequest.fromPartial({ snapshotId }));
const list = (fields = {}) => snapshots.list(requests.ListSnapshotsRequest.fromPartial({ folderId, ...fields }));
const remove = (snapshotId) => snapshots.delete(requests.DeleteSnapshotRequest.fromPartial({ snapshotId }));
const getOperation = (id) => operations.get(operationRequests.GetOperationRequest.fromPartial({ operationId: id }));

async function refusal(call) {
  let answer;
  try {
    answer = await call;
  } catch (error) {
    return error;
  }
  throw new Error(`was not refused: ${JSON.stringify(answer)}`);
}

async function gone(snapshotId) {
  const missing = await refusal(get(snapshotId));
  const { snapshots: found } = await list();
  return missing.code === NOT_FOUND && !found.some(({ id }) => id === snapshotId);
}

// The SDK rejects as soon as it sees an error, which may be while the operation still rolls back.
async function done(id) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const operation = await getOperation(id);
    if (operation.done) return operation;
    if (Date.now() > deadline) throw new Error('it did not come to an end');
    await new Promise((resolve) => { setTimeout(resolve, 20); });
  }
}

await part('the life of a snapshot', async () => {
  disk('node-life', 2);
  const operation = await create('node-life', { description: 'by Node', labels: { by: 'node' } });
  check('an operation has all that it always has', operation.id && operation.createdBy === caller && operation.createdAt && operation.modifiedAt, operation);
  const metadata = decodeMessage(operation.metadata);
  const { snapshotId } = metadata;
  check('its metadata has the id of the snapshot at once', snapshotId && metadata.diskId === 'node-life', metadata);
  const ended = await wait(operation);
  const made = decodeMessage(ended.response);
  check('create, wait: READY', made.status === Snapshot_Status.READY && made.id === snapshotId, made);
  check('all its fields are what was asked for',
    made.folderId === folderId && made.name === 'node-life' && made.description === 'by Node' && made.labels.by === 'node'
      && made.diskSize === 2 * MIB && made.storageSize > 0 && made.sourceDiskId === 'node-life', made);
  const got = await get(snapshotId);
  check('get gives the same', JSON.stringify(got) === JSON.stringify(made), got);
  const named = await list({ filter: 'name = "node-life"' });
  check('list with a filter has it alone', named.snapshots.length === 1 && named.snapshots[0].id === snapshotId, named);

  const change = requests.UpdateSnapshotRequest.fromPartial({ snapshotId, updateMask: { paths: ['name', 'labels'] }, name: 'node-other', description: 'not in the mask' });
  const changed = decodeMessage((await wait(await snapshots.update(change))).response);
  check('update changes what its mask names, and nothing else',
    changed.name === 'node-other' && changed.description === 'by Node' && Object.keys(changed.labels).length === 0, changed);

  const deleted = await wait(await remove(snapshotId));
  check('delete, wait: Empty', deleted.response.typeUrl.endsWith('/google.protobuf.Empty') && decodeMessage(deleted.response), deleted);
  check('after that get is NOT_FOUND and list does not have it', await gone(snapshotId));
  const history = await snapshots.listOperations(requests.ListSnapshotOperationsRequest.fromPartial({ snapshotId }));
  const described = history.operations.map(({ description }) => description);
  check('its operations are listed, newest first', described.join() === 'Delete snapshot,Update snapshot,Create snapshot', described);
});

await part('pages', async () => {
  disk('node-pages');
  const begun = await Promise.all([0, 1, 2].map((number) => create('node-pages', { name: `node-page-${number}` })));
  const made = await Promise.all(begun.map(wait));
  const filter = 'name IN ("node-page-0", "node-page-1", "node-page-2")';
  const first = await list({ filter, pageSize: 2 });
  const second = await list({ filter, pageSize: 2, pageToken: first.nextPageToken });
  const names = [...first.snapshots, ...second.snapshots].map(({ name }) => name).sort();
  check('pages of two, with tokens', names.join() === 'node-page-0,node-page-1,node-page-2' && first.snapshots.length === 2 && second.nextPageToken === '', { first, second });
  await Promise.all(made.map(async ({ response }) => wait(await remove(decodeMessage(response).id))));
});

await part('a create that fails', async () => {
  const image = disk('node-fails', 64);
  const operation = await create('node-fails');
  unlinkSync(image);
  const seen = await refusal(wait(operation));
  check('a disk that vanishes: the wait rejects with the operation', seen.id === operation.id && seen.error.message, seen);
  // Depends on whether the copy had opened it.
  check('its code says why', [NOT_FOUND, FAILED_PRECONDITION].includes(seen.error.code), seen);
  const now = await done(operation.id);
  check('it is done, with that error and no response', now.error.code === seen.error.code && now.response === undefined, now);
  check('and the snapshot is gone', await gone(decodeMessage(operation.metadata).snapshotId));
});

await part('a create that is cancelled', async () => {
  disk('node-cancelled', 64);
  const operation = await create('node-cancelled');
  const { snapshotId } = decodeMessage(operation.metadata);
  const waited = refusal(wait(operation));
  const answer = await operations.cancel(operationRequests.CancelOperationRequest.fromPartial({ operationId: operation.id }));
  check('cancel shows the operation', answer.id === operation.id, answer);
  const seen = await waited;
  check('the wait that was under way rejects with CANCELLED', seen.error?.code === CANCELLED, seen);
  const now = await done(operation.id);
  check('it is done, and CANCELLED', now.error.code === CANCELLED && now.response === undefined, now);
  check('and the snapshot is gone', await gone(snapshotId));
});

await part('an idempotency key', async () => {
  disk('node-key');
  // The SDK sends a session's headers with every call.
  const keyed = new Session({ iamToken, ssl: { rootCerts: readFileSync(ca) }, pollInterval: 100, headers: { 'Idempotency-Key': randomUUID() } });
  const client = keyed.client(serviceClients.SnapshotServiceClient, address);
  const request = requests.CreateSnapshotRequest.fromPartial({ folderId, diskId: 'node-key', name: 'node-key' });
  const first = await client.create(request);
  const second = await client.create(request);
  check('the same key gives the same operation', first.id === second.id, second);
  const made = await waitForOperation(first, keyed, PATIENCE_MS, address);
  const { id } = decodeMessage(made.response);
  check('reads with that key are reads', (await client.get(requests.GetSnapshotRequest.fromPartial({ snapshotId: id }))).id === id);
  await wait(await remove(id));
});

await part('what is refused', async () => {
  const missing = await refusal(get('fd8nosuchsnapshot000'));
  check('an error keeps its code, by which the SDK decides whether to retry', missing.code === NOT_FOUND && missing.name === 'ClientError', missing);
  const bad = await refusal(create('node-life', { name: 'No Name' }));
  check('a bad name is INVALID_ARGUMENT', bad.code === INVALID_ARGUMENT && bad.details.includes('name'), bad);
});

process.exit(anyFailed ? 1 : 0);
