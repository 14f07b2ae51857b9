/**
 * Tests the S3 store on a real Ceph: buckets of all kinds, a gateway that dies, hangs and refuses,
 * credentials, TLS.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import {
  CreateBucketCommand,
  CreateMultipartUploadCommand,
  ListMultipartUploadsCommand,
  ListObjectVersionsCommand,
  PutBucketVersioningCommand,
  PutObjectCommand,
  PutObjectLockConfigurationCommand,
  UploadPartCommand,
} from '@aws-sdk/client-s3';
import { MiB } from '../../src/base/bytes.ts';
import type { ObjectStore } from '../../src/vault/store/object-store.ts';
import { openStore } from '../../src/vault/store/open-store.ts';
import type { RetryWait } from '../../src/vault/store/retry.ts';
import { type S3Settings, connectS3 } from '../../src/vault/store/s3-client.ts';
import { openS3Store } from '../../src/vault/store/s3.ts';
import { storeContract } from '../contracts/object-store.contract.ts';
import { startCeph } from '../helpers/ceph.ts';
import { collect } from '../helpers/collect.ts';
import { waitFor } from '../helpers/nbd-process.ts';
import { startTcpProxy } from '../helpers/tcp-proxy.ts';
import { makeTlsFiles } from '../helpers/tls-files.ts';

/** The machine's own credentials must not be used. */
const environment = {
  AWS_EC2_METADATA_DISABLED: 'true',
  AWS_SHARED_CREDENTIALS_FILE: '/none',
  AWS_CONFIG_FILE: '/none',
};
Object.assign(process.env, environment);

const ceph = await startCeph({ after });
const gateway = await ceph.startGateway();
const user = await ceph.makeUser();
// All users and buckets are made now. After a gateway is killed, Ceph waits ten seconds for it with each of
// them.
const stranger = await ceph.makeUser();
const limited = await ceph.makeUser(MiB);
const admin = await connectS3(gateway.endpoint, user);
after(() => admin.close());
const { client } = admin;
for (const Bucket of ['plain', 'versions']) await client.send(new CreateBucketCommand({ Bucket }));
await client.send(new CreateBucketCommand({ Bucket: 'locked', ObjectLockEnabledForBucket: true }));
await client.send(
  new PutBucketVersioningCommand({ Bucket: 'versions', VersioningConfiguration: { Status: 'Enabled' } }),
);
await client.send(
  new PutObjectLockConfigurationCommand({
    Bucket: 'locked',
    ObjectLockConfiguration: {
      ObjectLockEnabled: 'Enabled',
      Rule: { DefaultRetention: { Mode: 'COMPLIANCE', Days: 1 } },
    },
  }),
);

const own = await connectS3(gateway.endpoint, limited);
await own.client.send(new CreateBucketCommand({ Bucket: 'limited' }));
own.close();

let places = 0;

/** Opens the store in an unused place of a bucket. */
function openBucket(
  bucket: string,
  settings: S3Settings = {},
  endpoint = gateway.endpoint,
): Promise<ObjectStore> {
  return openS3Store({ kind: 's3', endpoint, bucket, prefix: `p${places++}` }, { ...user, ...settings });
}

/** Opens the store with the usual retries. */
function openPatient(
  bucket: string,
  settings: S3Settings,
  endpoint: string,
  waits: RetryWait[],
): Promise<ObjectStore> {
  return openStore(
    { kind: 's3', endpoint, bucket, prefix: `p${places++}` },
    { s3: { ...user, ...settings }, retry: { longestWaitMs: 500, totalMs: 60_000 } },
    { onWait: (wait) => waits.push(wait) },
  );
}

async function contractOf(open: () => Promise<ObjectStore>) {
  const store = await open();
  return { store, close: () => store.close() };
}

storeContract('S3, a plain bucket', () => contractOf(() => openBucket('plain')));
for (const bucket of ['versions', 'locked'])
  storeContract(
    `S3, the bucket with ${bucket}`,
    () => contractOf(() => openBucket(bucket, { multipartThreshold: 8 * MiB, partSize: 5 * MiB })),
    // Ceph keeps every version, and accepts simultaneous puts. A reader sometimes finds none of them.
    { manyKeys: 60, largest: 8 * MiB, settlesRaces: false, mayMissReplaced: true },
  );
storeContract(
  'S3, opened as a vault opens it',
  () => contractOf(() => openPatient('plain', { multipartThreshold: 8 * MiB }, gateway.endpoint, [])),
  { manyKeys: 60, largest: 8 * MiB },
);

void describe('S3 that fails', () => {
  test('remains of uploads in parts are removed, and foreign objects are named', async () => {
    const store = await openBucket('plain');
    const prefix = `p${places - 1}/`;
    await store.put('a/b', Buffer.from('x'));
    for (const name of ['Foreign Name + & % é', 'a/b/c/d/e'])
      await client.send(new PutObjectCommand({ Bucket: 'plain', Key: prefix + name, Body: 'x' }));
    const upload = { Bucket: 'plain', Key: `${prefix}half` };
    const { UploadId } = await client.send(new CreateMultipartUploadCommand(upload));
    await client.send(
      new UploadPartCommand({ ...upload, UploadId, PartNumber: 1, Body: Buffer.alloc(5 * MiB) }),
    );
    assert.deepEqual(
      (await collect(store.list(''))).map(({ key }) => key),
      ['a/b'],
    );
    assert.deepEqual((await collect(store.foreign())).sort(), ['Foreign Name + & % é', 'a/b/c/d/e']);
    assert.equal((await store.cleanTemporary()).count, 0, 'it is no day old');
    assert.equal((await store.cleanTemporary({ olderThanMs: -60_000 })).count, 1);
    for (const Bucket of ['plain', 'versions', 'locked'])
      await waitFor(async () => {
        const { Uploads } = await client.send(new ListMultipartUploadsCommand({ Bucket }));
        return (Uploads ?? []).length === 0;
      }, 'every upload that a test broke off is aborted');
    await store.close();
  });

  test('a deleted object of a locked bucket is hidden and kept', async () => {
    const store = await openBucket('locked');
    const Prefix = `p${places - 1}/`;
    await store.put('k', Buffer.from('kept'));
    await store.delete('k');
    assert.equal(await store.head('k'), undefined);
    const { Versions, DeleteMarkers } = await client.send(
      new ListObjectVersionsCommand({ Bucket: 'locked', Prefix }),
    );
    assert.deepEqual([Versions?.length, DeleteMarkers?.length], [1, 1]);
    await store.close();
  });

  test('a gateway that is killed in the middle of a put, and started again: the put succeeds', async (t) => {
    for (const settings of [{}, { multipartThreshold: 8 * MiB }]) {
      const proxy = await startTcpProxy(t, gateway.port);
      const waits: RetryWait[] = [];
      const store = await openPatient('plain', settings, `http://127.0.0.1:${proxy.port}`, waits);
      const data = randomBytes(30 * MiB);
      const put = store.put('k', data);
      await proxy.whenSent(12 * MiB);
      await gateway.signal('SIGKILL');
      const other = await openS3Store(
        { kind: 's3', endpoint: gateway.endpoint, bucket: 'plain', prefix: 'p' },
        user,
      );
      await assert.rejects(other.head('k'), { code: 'VAULT_UNREACHABLE' });
      await other.close();
      await gateway.start();
      await put;
      assert.ok(waits.length > 0, 'it had to wait');
      assert.ok((await store.get('k')).equals(data));
      assert.equal((await collect(store.list(''))).length, 1);
      await store.close();
    }
  });

  test('a network that breaks in the middle of puts and gets', async (t) => {
    const proxy = await startTcpProxy(t, gateway.port);
    const endpoint = `http://127.0.0.1:${proxy.port}`;
    const data = randomBytes(24 * MiB);
    const once = await openBucket('plain', {}, endpoint);
    const put = once.put('k', data);
    const failed = assert.rejects(put, { code: 'VAULT_UNREACHABLE' });
    await proxy.whenSent(8 * MiB);
    proxy.cut();
    await failed;
    assert.equal(await once.head('k'), undefined, 'half a put leaves nothing');
    await once.close();

    const waits: RetryWait[] = [];
    const patient = await openPatient('plain', {}, endpoint, waits);
    const start = proxy.sent;
    const again = patient.put('k', data);
    await proxy.whenSent(start + 8 * MiB);
    proxy.cut();
    await again;
    assert.ok(waits.length >= 1);
    assert.ok((await patient.get('k')).equals(data));
    await patient.close();
  });

  test('a gateway that is stopped: our own time-out ends the request', async (t) => {
    const store = await openBucket('plain', { idleTimeoutMs: 1_000 });
    await store.put('k', Buffer.from('old'));
    t.after(() => gateway.signal('SIGCONT'));
    await gateway.signal('SIGSTOP');
    const start = performance.now();
    const silent = { code: 'VAULT_UNREACHABLE', message: /stopped answering/ };
    await Promise.all([
      assert.rejects(store.get('k'), silent),
      assert.rejects(store.head('k'), silent),
      assert.rejects(collect(store.list('')), silent),
      assert.rejects(store.put('k', Buffer.from('new')), silent),
      assert.rejects(store.put('big', Buffer.alloc(20 * MiB)), silent),
    ]);
    assert.ok(performance.now() - start < 15_000);
    await gateway.signal('SIGCONT');
    const waits: RetryWait[] = [];
    // The put that timed out may take effect at any time. This put is a different one.
    const patient = await openPatient('plain', { idleTimeoutMs: 5_000 }, gateway.endpoint, waits);
    await patient.put('k', Buffer.from('newer'));
    assert.equal((await patient.get('k')).toString(), 'newer');
    const found = await store.get('k');
    assert.ok(['old', 'new'].includes(found.toString()));
    await patient.close();
    await store.close();
  });

  test('credentials that are wrong, missing, or without permission', async () => {
    const denied = async (settings: S3Settings, message: RegExp, bucket = 'plain'): Promise<void> => {
      const store = await openS3Store(
        { kind: 's3', endpoint: gateway.endpoint, bucket, prefix: '' },
        settings,
      );
      const expected = { code: 'VAULT_DENIED', message };
      await assert.rejects(store.put('k', Buffer.from('x')), expected);
      await assert.rejects(store.get('k'), expected);
      await assert.rejects(collect(store.list('')), expected);
      await assert.rejects(store.head('k'), { code: 'VAULT_DENIED' });
      await store.close();
    };
    await denied({ ...user, secretAccessKey: 'wrong' }, /secret key/);
    await denied({ ...user, accessKeyId: 'UNKNOWN' }, /does not know the access key/);
    await denied({}, /no credentials/);
    await denied(stranger, /not allowed \(403 AccessDenied\)/);
  });

  test('credentials from the environment and from AWS’s files', async (t) => {
    const store = await openBucket('plain');
    const prefix = `p${places - 1}`;
    await store.put('k', Buffer.from('x'));
    await store.close();
    const get = async (settings: S3Settings): Promise<string> => {
      const other = await openS3Store(
        { kind: 's3', endpoint: gateway.endpoint, bucket: 'plain', prefix },
        settings,
      );
      return (await other.get('k').finally(() => other.close())).toString();
    };
    const directory = await mkdtemp(join(tmpdir(), 'aws-'));
    t.after(async () => {
      delete process.env['AWS_ACCESS_KEY_ID'];
      delete process.env['AWS_SECRET_ACCESS_KEY'];
      Object.assign(process.env, environment);
      await rm(directory, { recursive: true });
    });
    process.env['AWS_ACCESS_KEY_ID'] = user.accessKeyId;
    process.env['AWS_SECRET_ACCESS_KEY'] = user.secretAccessKey;
    assert.equal(await get({}), 'x');
    delete process.env['AWS_ACCESS_KEY_ID'];
    delete process.env['AWS_SECRET_ACCESS_KEY'];
    process.env['AWS_SHARED_CREDENTIALS_FILE'] = join(directory, 'credentials');
    await writeFile(
      join(directory, 'credentials'),
      `[backup]\naws_access_key_id = ${user.accessKeyId}\naws_secret_access_key = ${user.secretAccessKey}\n`,
      { mode: 0o600 },
    );
    assert.equal(await get({ profile: 'backup' }), 'x');
    await assert.rejects(get({ profile: 'other' }), { code: 'VAULT_DENIED' });
  });

  test('a bucket that does not exist', async () => {
    const store = await openBucket('no-such-bucket');
    const missing = { code: 'VAULT_NOT_FOUND', message: /no such bucket/ };
    await assert.rejects(store.head('k'), missing);
    await assert.rejects(store.get('k'), missing);
    await assert.rejects(store.put('k', Buffer.from('x')), missing);
    await assert.rejects(store.delete('k'), missing);
    await assert.rejects(collect(store.list('')), missing);
    await store.close();
  });

  test('a quota', async () => {
    const waits: RetryWait[] = [];
    const store = await openPatient('limited', limited, gateway.endpoint, waits);
    await store.put('small', Buffer.alloc(1_000));
    await assert.rejects(store.put('big', Buffer.alloc(3 * MiB)), { code: 'VAULT_FULL', message: /quota/ });
    assert.equal((await store.get('small')).length, 1_000);
    await store.close();
  });

  test('a clock that is 20 minutes fast', async (t) => {
    t.mock.timers.enable({ apis: ['Date'], now: Date.now() + 20 * 60_000 });
    const store = await openBucket('plain');
    await store.put('k', Buffer.from('x'));
    assert.equal((await store.get('k')).toString(), 'x');
    await store.close();
  });

  test('TLS: with the file of the authority, without it, and to the wrong port', async (t) => {
    const directory = await mkdtemp(join(tmpdir(), 's3-tls-'));
    t.after(() => rm(directory, { recursive: true }));
    makeTlsFiles(directory);
    const secure = await ceph.startGateway({
      tls: { certificate: join(directory, 'server-cert.pem'), key: join(directory, 'server-key.pem') },
    });
    const store = await openBucket('plain', { caFile: join(directory, 'ca-cert.pem') }, secure.endpoint);
    const data = randomBytes(2 * MiB);
    await store.put('k', data);
    assert.ok((await store.get('k')).equals(data));
    await store.close();

    const untrusting = await openBucket('plain', {}, secure.endpoint);
    await assert.rejects(untrusting.get('k'), { code: 'VAULT_TLS', message: /not trusted/ });
    await untrusting.close();
    const misled = await openBucket('plain', {}, gateway.endpoint.replace('http:', 'https:'));
    await assert.rejects(misled.get('k'), { code: 'VAULT_TLS', message: /the port does not use TLS/ });
    await misled.close();
    const plain = await openBucket('plain', {}, secure.endpoint.replace('https:', 'http:'));
    await assert.rejects(plain.get('k'), (thrown: { code: string }) => thrown.code.startsWith('VAULT_'));
    await plain.close();
    await secure.signal('SIGTERM');
  });

  test('an OSD that dies in the middle of a put, and comes back', async () => {
    // The gateway may never answer a request that needed the dead OSD. Then our own time-out ends the
    // request, and the next one succeeds. So there has to be time for several requests.
    const store = await openStore(
      { kind: 's3', endpoint: gateway.endpoint, bucket: 'plain', prefix: `p${places++}` },
      { s3: { ...user, idleTimeoutMs: 10_000 }, retry: { longestWaitMs: 500, totalMs: 150_000 } },
    );
    const before = await startOfOsd();
    await ceph.osd.signal('SIGKILL');
    const data = randomBytes(5 * MiB);
    const put = store.put('k', data);
    put.catch(() => undefined);
    // An OSD that is started right after its death does not always come up by itself. Another start helps.
    for (let starts = 1; ; starts++)
      try {
        await ceph.osd.start();
        await waitFor(async () => (await startOfOsd()) > before, 'the OSD is up again', 40_000);
        break;
      } catch (thrown) {
        if (starts === 3) throw thrown;
        await ceph.osd.end();
      }
    await put;
    assert.ok((await store.get('k')).equals(data));
    await store.close();
  });
});

/** Returns the epoch of the cluster's map in which the OSD last came up; 0 while it is down. */
async function startOfOsd(): Promise<number> {
  const { stdout } = await ceph.run('ceph', ['osd', 'dump', '--format', 'json']);
  const { osds } = JSON.parse(stdout) as { osds: { up: number; up_from: number }[] };
  const [osd] = osds;
  return osd?.up === 1 ? osd.up_from : 0;
}
