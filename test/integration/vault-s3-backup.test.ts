/**
 * Proves a vault in a bucket of a real Ceph, from the first backup to the restored device. The cases include
 * a bucket with versions and object lock, a gateway that dies in the middle, and the errors for wrong
 * credentials.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { CreateBucketCommand, PutObjectLockConfigurationCommand } from '@aws-sdk/client-s3';
import { MiB } from '../../src/base/bytes.ts';
import { connectS3 } from '../../src/vault/store/s3-client.ts';
import { backUpWell, jobStatus, scratchFor } from '../helpers/backup.ts';
import { startCeph } from '../helpers/ceph.ts';
import { daemonPaths, dattocli, startDaemon, waitFor } from '../helpers/daemon.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { dattocliHere, documentOf } from '../helpers/dattocli-here.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertSameFiles, assertWhole } from '../helpers/image-proof.ts';
import { makeLoop } from '../helpers/loop.ts';

const whole = { after };
const ceph = await startCeph(whole);
const gateway = await ceph.startGateway();
const user = await ceph.makeUser();
const admin = await connectS3(gateway.endpoint, user);
after(() => admin.close());
await admin.client.send(new CreateBucketCommand({ Bucket: 'plain' }));
await admin.client.send(new CreateBucketCommand({ Bucket: 'locked', ObjectLockEnabledForBucket: true }));
await admin.client.send(
  new PutObjectLockConfigurationCommand({
    Bucket: 'locked',
    ObjectLockConfiguration: {
      ObjectLockEnabled: 'Enabled',
      Rule: { DefaultRetention: { Mode: 'COMPLIANCE', Days: 1 } },
    },
  }),
);

const scratch = scratchFor(whole, { memory: true });
const credentials = join(scratch, 'credentials.json');
const wrong = join(scratch, 'wrong.json');
writeFileSync(
  credentials,
  JSON.stringify({ access_key_id: user.accessKeyId, secret_access_key: user.secretAccessKey }),
  { mode: 0o600 },
);
writeFileSync(wrong, JSON.stringify({ access_key_id: user.accessKeyId, secret_access_key: 'not it' }), {
  mode: 0o600,
});
const bucket = (name: string) => `vault+s3+http://127.0.0.1:${gateway.port}/${name}/hosts/a`;
const config = join(scratch, 'config.json');
writeFileSync(
  config,
  JSON.stringify({
    job_options: { tracker: 'none' },
    vaults: {
      plain: { location: bucket('plain'), credentials_file: credentials },
      locked: { location: bucket('locked'), credentials_file: credentials },
      stranger: { location: bucket('plain'), credentials_file: wrong },
    },
  }),
);
const paths = daemonPaths();
const here = ['--config', config, '--state-dir', paths.stateDirectory];
const daemon = await startDaemon({ paths, arguments: ['--config', config] });
atEnd(whole, async () => {
  await daemon.stop();
});

for (const name of ['plain', 'locked'])
  test(`a bucket (${name}): two points, a restored device, a check, and a forgotten point`, async (t) => {
    const vault = ['--vault', `vault:${name}`, ...here];
    const made = await dattocliHere(['vault', 'init', `vault:${name}`, ...here]);
    assert.equal(made.code, 0, made.err);
    const disk = await makeLoop(t, { size: 96 * MiB, filesystem: 'ext4', mount: true });
    const mountPoint = disk.mountPoint!;
    await fillWithFiles(mountPoint, 20 * MiB);
    const pair = ['--device', disk.device, '--target', `vault:${name}`];
    const first = await backUpWell(daemon, pair);
    writeFileSync(join(mountPoint, 'new'), randomBytes(2 * MiB));
    const second = await backUpWell(daemon, pair, '--differential');
    assert.ok(second.devices[0]!.bytes_stored! < 6 * MiB);

    const image = join(scratch, `restored-${name}`);
    const restored = await dattocliHere(['restore', 'latest', '--to', image, ...vault]);
    assert.equal(restored.code, 0, restored.err);
    await assertWhole('ext4', image, 'frozen');
    await assertSameFiles('ext4', image, mountPoint, scratch);
    rmSync(image);

    const checked = await dattocliHere(['vault', 'check', '--read-data', ...vault]);
    assert.equal(checked.code, 0, `${checked.out}${checked.err}`);
    const gone = await dattocliHere(['forget', first.devices[0]!.point!, ...vault]);
    assert.equal(gone.code, 0, gone.err);
    const pruned = await dattocliHere(['vault', 'prune', ...vault]);
    assert.equal(pruned.code, 0, `${pruned.out}${pruned.err}`);
    const { points } = await documentOf<{ points: { id: string }[] }>(['points', ...vault]);
    assert.deepEqual(
      points.map(({ id }) => id),
      [second.devices[0]!.point],
    );
    const verified = await dattocliHere(['verify', 'latest', '--level', 'read', ...vault]);
    assert.equal(verified.code, 0, `${verified.out}${verified.err}`);
  });

test('the gateway dies in the middle of a backup and comes back: the job continues, and its point is whole', async (t) => {
  const disk = await makeLoop(t, { size: 96 * MiB, filesystem: 'ext4', mount: true });
  writeFileSync(join(disk.mountPoint!, 'file'), randomBytes(60 * MiB));
  const started = await dattocli(
    ['startbackup', '--full', '--rate', '12M', '--device', disk.device, '--target', 'vault:plain'],
    daemon,
  );
  const uuid = started.stdout.trim();
  const running = async () => jobStatus(daemon, uuid);
  await waitFor(
    'a part of it was sent',
    60_000,
    async () => (await running()).devices[0]!.bytes_sent > 20 * MiB,
  );
  await gateway.signal('SIGKILL');
  const atDeath = (await running()).devices[0]!.bytes_sent;
  await waitFor('it goes on reading', 60_000, async () => (await running()).devices[0]!.bytes_sent > atDeath);
  await gateway.start();
  await waitFor('the job ends', 180_000, async () => (await running()).state !== 'IN_PROGRESS');
  const status = await running();
  assert.deepEqual([status.state, status.error], ['SUCCEEDED', null]);
  const verified = await dattocliHere([
    'verify',
    status.devices[0]!.point!,
    '--level',
    'read',
    '--vault',
    'vault:plain',
    ...here,
  ]);
  assert.equal(verified.code, 0, `${verified.out}${verified.err}`);
});

test('wrong credentials are refused and reported before any change', async (t) => {
  const disk = await makeLoop(t, { size: 32 * MiB, filesystem: 'ext4', mount: true });
  const refused = await dattocli(
    ['startbackup', '--full', '--json', '--device', disk.device, '--target', 'vault:stranger'],
    daemon,
  );
  assert.equal(refused.code, 1);
  const error = JSON.parse(refused.stderr) as { code: string; message: string; hint?: string };
  assert.equal(error.code, 'VAULT_DENIED');
  assert.doesNotMatch(`${error.message}${error.hint ?? ''}`, /not it/);
  assert.ok(statSync(disk.image).size > 0);
});
