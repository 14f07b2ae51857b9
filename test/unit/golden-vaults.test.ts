/** The golden vaults open or fail, and are damaged and repaired, exactly as docs/vault-check.md describes. */
import assert from 'node:assert/strict';
import { cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { AgentError } from '../../src/base/errors.ts';
import { type CheckResult, checkVault } from '../../src/vault/check/check-vault.ts';
import { repairVault } from '../../src/vault/check/repair.ts';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import type { KeyMaterial } from '../../src/vault/key-material.ts';
import { listChecks } from '../../src/vault/points/checks.ts';
import { deletePoint, isProtected, listPoints } from '../../src/vault/points/points.ts';
import { prune } from '../../src/vault/prune/prune.ts';
import { openDirectoryStore } from '../../src/vault/store/directory.ts';
import { Vault } from '../../src/vault/vault.ts';
import {
  goldenChunkSize,
  goldenImages,
  goldenPointNames,
  goldenSize,
  imageDigest,
} from '../helpers/golden-images.ts';
import { backUp, readBack } from '../helpers/vault-writer.ts';

const golden = join(import.meta.dirname, '../golden/vault-1');
const page = join(import.meta.dirname, '../../docs/vault-check.md');
const scratch = mkdtempSync(join(tmpdir(), 'golden-vaults-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

const expected = JSON.parse(readFileSync(join(golden, 'expected.json'), 'utf8')) as {
  readonly id: string;
  readonly keys: readonly KeyMaterial[];
  readonly points: Readonly<Record<string, string>>;
  readonly digests: Readonly<Record<string, string>>;
};
const keyFile = expected.keys.find(({ kind }) => kind === 'file')!;

let copies = 0;

/** Makes a copy that may be changed, with an empty index. */
async function openCopy(name: string): Promise<{ vault: Vault; newIndex: () => ChunkIndex; place: string }> {
  const place = join(scratch, `${name}-${copies++}`);
  cpSync(join(golden, name), place, { recursive: true });
  const vault = await Vault.open(await openDirectoryStore(place), keyFile);
  return { vault, place, newIndex: () => ChunkIndex.open(join(scratch, `${copies++}.sqlite`), vault.id) };
}

function nameOf(point: string): string {
  return Object.entries(expected.points).find(([, id]) => id === point)?.[0] ?? 'new';
}

/** Returns the number of chunks that cannot be restored, by point. */
function lostOf({ points }: CheckResult): string {
  const lost = points.flatMap(({ point, devices }) => {
    const bytes = devices.reduce((sum, { lostBytes }) => sum + lostBytes, 0);
    return bytes === 0 ? [] : [`${nameOf(point)} ${Math.ceil(bytes / goldenChunkSize)}`];
  });
  return lost.join(', ') || 'nothing';
}

/** Returns the columns of the page that a test can observe, by their headings. */
async function observe(name: string): Promise<Record<string, string>> {
  const row = { open: '', packs: '', objects: '', foreign: '', before: '', after: '', anew: '' };
  const opened = await openCopy(name).catch((error: unknown) => {
    if (!(error instanceof AgentError)) throw error;
    return error;
  });
  if (opened instanceof AgentError) return { ...row, open: `\`${opened.code}\`` };
  const { vault, newIndex } = opened;
  const index = newIndex();
  const before = await checkVault(vault, index, { readData: true });
  const repaired = await repairVault(vault, newIndex());
  assert.deepEqual(repaired.before.points, before.points);
  await compare(vault, index, repaired.after);
  for (const point of goldenPointNames)
    await backUp(vault, index, { image: goldenImages[point], size: goldenSize, path: '/dev/golden' });
  const anew = await checkVault(vault, newIndex(), { readData: true });
  await compare(vault, index, anew);
  return {
    open: '',
    packs: before.damagedPacks.map(({ parts }) => String(parts ?? 'all')).join(', '),
    objects: before.damagedObjects.map(({ key }) => key.split('/')[0]!).join(', '),
    foreign: before.foreign.map((each) => `\`${each}\``).join(', '),
    before: lostOf(before),
    after: lostOf(repaired.after),
    anew: lostOf(anew),
  };
}

/** Asserts that points that are reported as whole hold the data that was backed up. */
async function compare(vault: Vault, index: ChunkIndex, result: CheckResult): Promise<void> {
  const { points } = await listPoints(vault);
  for (const { point, whole } of result.points) {
    const device = points.find(({ id }) => id === point)!.devices[0]!;
    const name = nameOf(point);
    if (whole && name !== 'new')
      assert.equal(imageDigest(await readBack(vault, index, device)), expected.digests[name]);
  }
}

const rows = readFileSync(page, 'utf8')
  .split('\n')
  .filter((line) => /^\| `[a-z-]+` /.test(line))
  .map((line) =>
    line
      .split('|')
      .slice(1, -1)
      .map((cell) => cell.trim()),
  );

test('the page has a row for each golden vault', () => {
  const names = readdirSync(golden, { withFileTypes: true }).flatMap((entry) =>
    entry.isDirectory() ? entry.name : [],
  );
  assert.deepEqual(rows.map(([name]) => name?.replaceAll('`', '')).sort(), names.sort());
});

for (const [name = '', , ...cells] of rows)
  test(`the golden vault ${name}`, async () => {
    assert.deepEqual(Object.values(await observe(name.replaceAll('`', ''))), cells);
  });

test('each of its keys opens the healthy vault, and its content is unchanged', async () => {
  const { place, newIndex } = await openCopy('healthy');
  const store = await openDirectoryStore(place);
  for (const key of expected.keys) assert.equal((await Vault.open(store, key)).id, expected.id);
  await assert.rejects(() => Vault.open(store, { kind: 'passphrase', passphrase: 'wrong' }), {
    code: 'VAULT_WRONG_KEY',
  });
  const vault = await Vault.open(store, keyFile);
  const { points } = await listPoints(vault);
  assert.deepEqual(
    points.map(({ id }) => nameOf(id)),
    [...goldenPointNames],
  );
  for (const { id, devices } of points) {
    const digest = imageDigest(await readBack(vault, newIndex(), devices[0]!));
    assert.equal(digest, expected.digests[nameOf(id)]);
    assert.equal(digest, imageDigest(goldenImages[nameOf(id) as 'first']));
  }
  assert.equal(await isProtected(vault, expected.points['first']!), true);
  assert.equal((await listChecks(vault)).checks[0]?.outcome, 'whole');
});

test('lost data is reported to the byte', async () => {
  const { vault, newIndex } = await openCopy('missing-pack');
  const { points } = await checkVault(vault, newIndex());
  const second = points.find(({ point }) => point === expected.points['second']);
  assert.deepEqual(second?.devices[0]?.lost, [
    { offset: 0, length: goldenChunkSize },
    { offset: 2 * goldenChunkSize, length: 2 * goldenChunkSize },
    { offset: 10 * goldenChunkSize, length: 2 * goldenChunkSize },
    { offset: 500 * goldenChunkSize, length: 2 * goldenChunkSize },
    { offset: 1023 * goldenChunkSize, length: 2 * goldenChunkSize },
    { offset: 1300 * goldenChunkSize, length: 2048 },
  ]);
});

test('an index that is damaged, or of another vault, is made again', async () => {
  const { vault } = await openCopy('healthy');
  for (const [name, bytes] of [
    ['garbage', Buffer.alloc(10_000, 'garbage')],
    ['empty', Buffer.alloc(0)],
  ] as const) {
    const path = join(scratch, `${name}.sqlite`);
    writeFileSync(path, bytes);
    assert.equal((await checkVault(vault, ChunkIndex.open(path, vault.id))).ok, true);
  }
  const other = join(scratch, 'other.sqlite');
  ChunkIndex.open(other, 'f'.repeat(32)).close();
  assert.equal((await checkVault(vault, ChunkIndex.open(other, vault.id))).ok, true);
});

test('a prune refuses if it cannot know the needs of all points', async () => {
  for (const name of ['flipped-point', 'missing-pages']) {
    const { vault, newIndex } = await openCopy(name);
    await assert.rejects(() => prune(vault, newIndex()), { code: 'VAULT_DAMAGED' });
    const forced = prune(vault, newIndex(), { allowDamage: true });
    if (name === 'flipped-point') await assert.rejects(() => forced, { code: 'VAULT_DAMAGED' });
    else assert.equal((await forced).deleted.packs, 1, 'the chunks that only the lost pages named');
    await deletePoint(vault, expected.points['second']!);
    await prune(vault, newIndex());
    const { points } = await checkVault(vault, newIndex(), { readData: true });
    assert.deepEqual(
      points.map(({ point, whole }) => [nameOf(point), whole]),
      [
        ['first', true],
        ['other', true],
      ],
    );
  }
});
