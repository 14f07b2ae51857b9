/**
 * Makes the golden vaults of format version 1: one healthy, the others damaged on purpose. They are
 * committed, and must not be made again, because later versions have to read the data that this version
 * wrote. docs/vault-check.md describes the result of each, and test/unit/golden-vaults.test.ts compares the
 * two.
 *
 *     scripts/node test/golden/make-vaults.ts DIRECTORY
 */
import crypto from 'node:crypto';
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { mock } from 'node:test';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { newRecoveryCode } from '../../src/vault/key-material.ts';
import { readDirectory } from '../../src/vault/packs/read-pack.ts';
import { putCheck } from '../../src/vault/points/checks.ts';
import { protectPoint } from '../../src/vault/points/points.ts';
import { openDirectoryStore } from '../../src/vault/store/directory.ts';
import { Vault } from '../../src/vault/vault.ts';
import {
  goldenChunkSize,
  goldenImages,
  goldenPointNames,
  goldenSize,
  imageDigest,
} from '../helpers/golden-images.ts';
import { seeded } from '../helpers/random.ts';
import { type TestBase, backUp } from '../helpers/vault-writer.ts';

const [target] = process.argv.slice(2);
if (target === undefined) throw new Error('where to?');
const owner = { host: 'golden', machine: '1'.repeat(32), boot: 'b', pid: 1, start_time: 1 };
const packSize = 1024 * 1024;

// Gives the same bytes in every run, if zstd's version is the same.
const random = seeded(1);
crypto.randomBytes = (size: number) =>
  Buffer.from(Array.from({ length: size }, () => Math.floor(random() * 256)));
syncBuiltinESMExports();
mock.timers.enable({ apis: ['Date'], now: Date.UTC(2025, 0, 1) });

const healthy = join(target, 'healthy');
const points = await makeHealthy();
const packs = await findPacks();
damage('missing-pack', (place) => fs.rmSync(join(place, packs.firstChunks)));
damage('missing-pages', (place) => fs.rmSync(join(place, packs.secondPages)));
damage('flipped-chunk', (place) => flip(join(place, packs.firstChunks), 1000));
damage('flipped-directory', (place) => flip(join(place, packs.secondChunks), -60));
damage('flipped-point', (place) => flip(join(place, `points/${points.second}`), 40));
damage('flipped-parameters', (place) =>
  replace(join(place, 'vault.json'), `"chunk_size": ${goldenChunkSize}`, '"chunk_size": 8192'),
);
damage('truncated-pack', (place) => {
  const path = join(place, packs.firstChunks);
  fs.truncateSync(path, Math.floor(fs.statSync(path).size / 2));
});
damage('half-written-point', (place) => {
  const point = fs.readFileSync(join(place, `points/${points.other}`));
  fs.mkdirSync(join(place, 'tmp'), { recursive: true });
  fs.writeFileSync(join(place, 'tmp/4711-0123456789abcdef01234567'), point.subarray(0, 100));
  fs.rmSync(join(place, `points/${points.other}`));
});
damage('foreign-file', (place) => {
  fs.writeFileSync(join(place, 'README.txt'), 'who put this here?\n');
  fs.writeFileSync(join(place, 'points/not-a-point'), 'nor this?\n');
});
damage('newer-version', (place) => replace(join(place, 'vault.json'), '"version": 1', '"version": 2'));
damage('no-parameters', (place) => fs.rmSync(join(place, 'vault.json')));

async function makeHealthy(): Promise<Record<string, string>> {
  const code = newRecoveryCode();
  const material = [
    { material: { kind: 'passphrase', passphrase: 'correct horse bättery staple' }, label: 'passphrase' },
    { material: { kind: 'file', text: `${'0123456789abcdef'.repeat(4)}\n` }, label: 'key file' },
    { material: { kind: 'recovery', code }, label: 'recovery code' },
  ] as const;
  const store = await openDirectoryStore(healthy, { create: true });
  const vault = await Vault.init(store, {
    keys: material,
    cost: { N: 1024, p: 1 },
    chunkSize: goldenChunkSize,
    packSize,
  });
  const scratch = fs.mkdtempSync(join(tmpdir(), 'golden-'));
  const index = ChunkIndex.open(join(scratch, 'index.sqlite'), vault.id);
  const ids: Record<string, string> = {};
  let first: TestBase | undefined;
  for (const [day, name] of goldenPointNames.entries()) {
    const { id, devices } = await backUp(vault, index, {
      image: goldenImages[name],
      size: goldenSize,
      path: '/dev/golden',
      finished: new Date(Date.UTC(2025, 0, 2 + day)),
      base: name === 'second' ? first : undefined,
      owner,
    });
    ids[name] = id;
    if (name === 'first') first = { id, image: goldenImages.first, device: devices[0]! };
  }
  const at = new Date(Date.UTC(2025, 0, 9)).toISOString();
  const check = { level: 'read', at, coverage: 1, outcome: 'whole', problems: [], agent: '1.0.0' } as const;
  await putCheck(vault, ids['first']!, check);
  await protectPoint(vault, ids['first']!);
  index.close();
  fs.rmSync(scratch, { recursive: true });
  fs.rmSync(join(healthy, 'tmp'), { recursive: true, force: true });
  const digests = Object.fromEntries(goldenPointNames.map((name) => [name, imageDigest(goldenImages[name])]));
  const expected = { id: vault.id, keys: material.map((each) => each.material), points: ids, digests };
  fs.writeFileSync(join(target!, 'expected.json'), `${JSON.stringify(expected, null, 2)}\n`);
  return ids;
}

/** Returns the packs of the first two points, by their order and kind. */
async function findPacks(): Promise<Record<'firstChunks' | 'secondChunks' | 'secondPages', string>> {
  const store = await openDirectoryStore(healthy);
  const vault = await Vault.open(store, { kind: 'file', text: '0123456789abcdef'.repeat(4) });
  const found: Record<string, string> = {};
  for await (const { key } of store.list('packs/')) {
    const directory = await readDirectory(vault, key.split('/')[2]!);
    const point = Object.entries(points).find(([, id]) => id === directory.writer)?.[0];
    found[`${point} ${directory.kind}`] = key;
  }
  return {
    firstChunks: found['first chunks']!,
    secondChunks: found['second chunks']!,
    secondPages: found['second pages']!,
  };
}

function damage(name: string, work: (place: string) => void): void {
  const place = join(target!, name);
  fs.cpSync(healthy, place, { recursive: true });
  work(place);
}

/** Flips a bit; a negative offset counts from the end. */
function flip(path: string, offset: number): void {
  const data = fs.readFileSync(path);
  data[offset < 0 ? data.length + offset : offset]! ^= 0x10;
  fs.writeFileSync(path, data);
}

function replace(path: string, old: string, next: string): void {
  const text = fs.readFileSync(path, 'utf8');
  if (!text.includes(old)) throw new Error(`${path} does not hold ${old}`);
  fs.writeFileSync(path, text.replace(old, next));
}
