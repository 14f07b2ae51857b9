/**
 * Proves append-only agents on a real Ceph, with exactly the bucket policy that docs/vault.md shows. A user
 * who may put but not delete can back up, is refused every deletion, and leaves nothing that blocks a user
 * who may delete. On a bucket with object lock, objects that such an agent replaced or hid can be restored.
 */
import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import {
  CopyObjectCommand,
  CreateBucketCommand,
  DeleteObjectCommand,
  ListObjectVersionsCommand,
  type ObjectVersion,
  PutBucketPolicyCommand,
  PutObjectCommand,
  PutObjectLockConfigurationCommand,
  type S3Client,
} from '@aws-sdk/client-s3';
import { MiB } from '../../src/base/bytes.ts';
import { connectS3 } from '../../src/vault/store/s3-client.ts';
import { backUpWell, scratchFor } from '../helpers/backup.ts';
import { type CephUser, startCeph } from '../helpers/ceph.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { daemonPaths, startDaemon } from '../helpers/daemon.ts';
import { dattocliHere, documentOf, refusedHere } from '../helpers/dattocli-here.ts';
import { makeLoop } from '../helpers/loop.ts';

/** Returns a JSON block of docs/vault.md: the first one, indented by four spaces, that has this text. */
function documented(text: string): string {
  const page = readFileSync(join(import.meta.dirname, '../../docs/vault.md'), 'utf8');
  const blocks = page.match(/(?<=\n\n)(?: {4}.*\n| *\n(?= {4}))+/g) ?? [];
  const found = blocks.filter((block) => block.includes(text));
  assert.equal(found.length, 1, `docs/vault.md has ${found.length} examples with ${text}`);
  return found[0]!;
}

const policy = documented('"Principal"');
assert.doesNotThrow(() => JSON.parse(policy));
const lock = JSON.parse(/'(\{[^']*\})'/.exec(documented('put-object-lock-configuration'))![1]!) as {
  ObjectLockEnabled: 'Enabled';
  Rule: { DefaultRetention: { Mode: 'COMPLIANCE'; Days: number } };
};

const whole = { after };
const ceph = await startCeph(whole);
const gateway = await ceph.startGateway();
const owner = await connectedAs(await namedUser('keeper'));
const agents = await namedUser('agents');
const pruner = await namedUser('pruner');
const agent = await connectedAs(agents);
const pruning = await connectedAs(pruner);
for (const bucket of ['backups', 'plain']) {
  const isLocked = bucket === 'backups';
  await owner.send(new CreateBucketCommand({ Bucket: bucket, ObjectLockEnabledForBucket: isLocked }));
  await owner.send(
    new PutBucketPolicyCommand({ Bucket: bucket, Policy: policy.replaceAll(':::backups', `:::${bucket}`) }),
  );
}
await owner.send(new PutObjectLockConfigurationCommand({ Bucket: 'backups', ObjectLockConfiguration: lock }));

const scratch = scratchFor(whole, { memory: true });
const config = join(scratch, 'config.json');
const vaults: Record<string, unknown> = {};
for (const [who, user] of Object.entries({ agents, pruner })) {
  const file = join(scratch, `${who}.json`);
  const { accessKeyId, secretAccessKey } = user;
  writeFileSync(file, JSON.stringify({ access_key_id: accessKeyId, secret_access_key: secretAccessKey }), {
    mode: 0o600,
  });
  for (const bucket of ['backups', 'plain'])
    vaults[`${bucket}-${who}`] = {
      location: `vault+s3+http://127.0.0.1:${gateway.port}/${bucket}/hosts`,
      credentials_file: file,
    };
}
writeFileSync(config, JSON.stringify({ vaults }));
const paths = daemonPaths();
const here = ['--config', config, '--state-dir', paths.stateDirectory];
const daemon = await startDaemon({ paths, arguments: ['--config', config] });
atEnd(whole, async () => {
  await daemon.stop();
});

async function connectedAs(user: CephUser): Promise<S3Client> {
  const connection = await connectS3(gateway.endpoint, user);
  after(() => connection.close());
  return connection.client;
}

/** Makes a user with a name that the policy contains. */
async function namedUser(name: string): Promise<CephUser> {
  const user = {
    accessKeyId: randomBytes(10).toString('hex').toUpperCase(),
    secretAccessKey: randomBytes(20).toString('hex'),
  };
  await ceph.run('radosgw-admin', [
    ...['user', 'create', `--uid=${name}`, `--display-name=${name}`],
    ...[`--access-key=${user.accessKeyId}`, `--secret-key=${user.secretAccessKey}`],
  ]);
  return user;
}

/** Returns all versions and delete markers under a prefix of the vault, the latest first. */
async function versionsOf(
  Bucket: string,
  prefix: string,
): Promise<(ObjectVersion & { isMarker: boolean })[]> {
  const found = await owner.send(new ListObjectVersionsCommand({ Bucket, Prefix: `hosts/${prefix}` }));
  assert.equal(found.IsTruncated, false);
  return [
    ...(found.Versions ?? []).map((each) => ({ ...each, isMarker: false })),
    ...(found.DeleteMarkers ?? []).map((each) => ({ ...each, isMarker: true })),
  ];
}

async function ok(args: readonly string[]): Promise<void> {
  const said = await dattocliHere(args);
  assert.equal(said.code, 0, `${args.join(' ')}: ${said.out}${said.err}`);
}

async function pointsOf(vault: readonly string[]): Promise<string[]> {
  const { points } = await documentOf<{ points: { id: string }[] }>(['points', ...vault]);
  return points.map(({ id }) => id);
}

const denied = { name: 'AccessDenied' };

for (const bucket of ['plain', 'backups'])
  test(`bucket ${bucket}: an append-only user backs up; deletions are refused, and block no other user`, async (t) => {
    const asAgent = ['--vault', `vault:${bucket}-agents`, ...here];
    const asPruner = ['--vault', `vault:${bucket}-pruner`, ...here];
    const { key_file: keyFile } = await documentOf<{ key_file: string }>([
      ...['vault', 'init', `vault:${bucket}-agents`, ...here],
    ]);
    const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true });
    writeFileSync(join(disk.mountPoint!, 'first'), randomBytes(12 * MiB));
    const pair = ['--device', disk.device, '--target', `vault:${bucket}-agents`];
    const first = (await backUpWell(daemon, pair)).devices[0]!.point!;
    writeFileSync(join(disk.mountPoint!, 'second'), randomBytes(2 * MiB));
    const next = (await backUpWell(daemon, pair, '--incremental')).devices[0]!;
    const second = next.point!;
    assert.ok(next.bytes_stored! < 6 * MiB);

    const { writers, locks } = await documentOf<{ writers: unknown[]; locks: unknown[] }>([
      ...['vault', 'unlock', ...asAgent],
    ]);
    assert.deepEqual([writers, locks], [[], []]);
    const keys = await documentOf<{ keys: { id: string }[] }>(['vault', 'key', 'list', ...asAgent]);
    for (const command of [
      ['forget', first],
      ['forget', '--keep-last', '1'],
      ['forget', '--keep-last', '1', '--grace', '0'],
      ['vault', 'prune'],
      ['vault', 'check', '--repair'],
      ['vault', 'key', 'remove', keys.keys[1]!.id],
    ]) {
      const { hint } = await refusedHere([...command, ...asAgent], 'VAULT_DENIED');
      assert.match(hint!, /with delete permission/, command.join(' '));
    }
    assert.deepEqual(await documentOf(['vault', 'unlock', ...asPruner]), { writers: [], locks: [] });
    assert.deepEqual(await pointsOf(asAgent), [first, second]);
    await ok(['forget', '--dry-run', '--keep-last', '1', ...asAgent]);
    await ok(['vault', 'prune', '--dry-run', ...asAgent]);
    await ok(['verify', first, '--level', 'reachable', ...asAgent]);
    await ok(['vault', 'check', ...asAgent]);
    await ok(['restore', first, '--to', join(scratch, `${bucket}.img`), ...asAgent]);
    await ok(['forget', '--protect', second, ...asAgent]);
    await refusedHere(['forget', '--unprotect', second, ...asAgent], 'VAULT_DENIED');
    await ok(['forget', '--unprotect', second, ...asPruner]);

    const oldKey = join(scratch, `${bucket}.old.key`);
    copyFileSync(keyFile, oldKey);
    const change = await dattocliHere(['vault', 'key', 'change', '--json', ...asAgent]);
    assert.equal(change.code, 5, change.err);
    const { removed, warning } = JSON.parse(change.out) as { removed: unknown; warning: string };
    assert.equal(removed, null);
    assert.match(warning, /the old key \([0-9a-f]{32}\) may still open it/);
    assert.notDeepEqual(readFileSync(keyFile), readFileSync(oldKey));
    for (const key of [[], ['--key-file', oldKey]])
      assert.deepEqual(await pointsOf([...asAgent, ...key]), [first, second]);

    await ok(['forget', first, ...asPruner]);
    const pruned = await documentOf<{ deleted: { packs: number } }>([
      'vault',
      'prune',
      '--max-waste',
      '1%',
      ...asPruner,
    ]);
    assert.ok(pruned.deleted.packs > 0);
    await ok(['vault', 'check', '--repair', ...asPruner]);
    assert.deepEqual(await pointsOf(asAgent), [second]);
    await backUpWell(daemon, pair, '--incremental');
  });

test('object lock: versions survive every deletion, and hidden or replaced objects come back', async () => {
  const Bucket = 'backups';
  const asAgent = ['--vault', 'vault:backups-agents', ...here];
  const asPruner = ['--vault', 'vault:backups-pruner', ...here];
  await ok(['vault', 'check', '--read-data', ...asPruner]);
  const packs = (await versionsOf(Bucket, 'packs/')).filter(
    ({ isMarker, IsLatest }) => !isMarker && IsLatest,
  );
  const [pack] = packs;
  const { Key, VersionId } = pack!;

  // The rights of an attacker on a machine that was taken over.
  for (const client of [agent, pruning, owner])
    await assert.rejects(client.send(new DeleteObjectCommand({ Bucket, Key, VersionId })), denied);
  await assert.rejects(agent.send(new DeleteObjectCommand({ Bucket, Key })), denied);
  await agent.send(new PutObjectCommand({ Bucket, Key, Body: 'no pack', ContentMD5: md5('no pack') }));
  // The rights of an attacker with the pruner's credentials: everything is hidden.
  const points = (await versionsOf(Bucket, 'points/')).filter(
    ({ isMarker, IsLatest }) => !isMarker && IsLatest,
  );
  for (const point of points) await pruning.send(new DeleteObjectCommand({ Bucket, Key: point.Key }));
  assert.deepEqual(await pointsOf(asAgent), []);

  // As docs/vault.md describes: delete markers are removed, and the older version is copied over the younger
  // one.
  for (const marker of (await versionsOf(Bucket, 'points/')).filter(({ isMarker }) => isMarker))
    if (points.some((point) => point.Key === marker.Key))
      await owner.send(new DeleteObjectCommand({ Bucket, Key: marker.Key, VersionId: marker.VersionId }));
  assert.equal((await pointsOf(asAgent)).length, points.length);
  const { code } = await dattocliHere(['vault', 'check', '--read-data', ...asPruner]);
  assert.equal(code, 1);
  await owner.send(
    new CopyObjectCommand({ Bucket, Key, CopySource: `${Bucket}/${Key}?versionId=${VersionId}` }),
  );
  await ok(['vault', 'check', '--read-data', ...asPruner]);
});

function md5(text: string): string {
  return createHash('md5').update(text).digest('base64');
}
