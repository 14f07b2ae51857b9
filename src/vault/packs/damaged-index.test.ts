/** The index is only a cache: whatever happens to its file, data in the store can be read, and no data is lost. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { indexPath, packIds, storeParts, testVault } from '../../../test/helpers/vault-parts.ts';
import type { AgentError } from '../../base/errors.ts';
import { ChunkIndex } from '../index/chunk-index.ts';
import { sampleAgrees } from '../index/agree.ts';
import { refreshIndex } from '../index/refresh.ts';
import { packObject } from './format.ts';
import { PartReader } from './part-reader.ts';

const chunks = Array.from({ length: 600 }, () => randomBytes(4000));

/** Overwrites a range of the file, like a failing disk. */
function overwrite(path: string, data: Buffer, from: number): void {
  const fd = openSync(path, 'r+');
  writeSync(fd, data, 0, data.length, from);
  closeSync(fd);
}

function sql(path: string, ...statements: string[]): void {
  const database = new DatabaseSync(path);
  for (const statement of statements) database.exec(statement);
  database.exec('PRAGMA wal_checkpoint(TRUNCATE)');
  database.close();
}

const damages: Record<string, (path: string) => void> = {
  'is gone': (path) => rmSync(path),
  'is garbage': (path) => writeFileSync(path, randomBytes(100_000)),
  'is empty': (path) => truncateSync(path),
  'is truncated': (path) => truncateSync(path, 20_000),
  'is a directory': (path) => {
    rmSync(path);
    mkdirSync(path);
  },
  'has zeros in the middle': (path) => overwrite(path, Buffer.alloc(20 * 4096), 3 * 4096),
  'has noise after its header': (path) => overwrite(path, randomBytes(statSync(path).size - 16_384), 16_384),
  'has other offsets': (path) => sql(path, 'UPDATE parts SET offset = offset + 16'),
  'has other lengths': (path) => sql(path, 'UPDATE parts SET encoded = encoded - 1'),
  'has other encodings': (path) => sql(path, 'UPDATE parts SET encoding = 1 - encoding'),
  'has other names': (path) =>
    sql(
      path,
      'CREATE TABLE t AS SELECT * FROM parts',
      'DELETE FROM parts',
      `INSERT INTO parts SELECT (SELECT o.name FROM t o WHERE o.rowid = t.rowid % 600 + 1), pack, offset, encoded, plain,
       encoding, sum FROM t`,
      'DROP TABLE t',
    ),
  'has its packs swapped': (path) =>
    sql(path, 'UPDATE parts SET pack = (SELECT max(number) FROM packs) + 1 - pack'),
  'has other ids of packs': (path) => sql(path, 'UPDATE packs SET id = randomblob(16) WHERE number = 2'),
  'has other kinds of packs': (path) => sql(path, 'UPDATE packs SET kind = 2'),
  'lacks the parts of a pack': (path) => sql(path, 'DELETE FROM parts WHERE pack = 2'),
  'lacks all parts': (path) => sql(path, 'DELETE FROM parts'),
  'lacks a pack': (path) => sql(path, 'DELETE FROM packs WHERE number = 1'),
  'is of another vault': (path) => sql(path, `UPDATE meta SET value = 'another' WHERE key = 'vault'`),
  'is of another version': (path) => sql(path, 'PRAGMA user_version = 1'),
};

for (const [what, damage] of Object.entries(damages))
  test(`an index that ${what} loses no data`, async (t) => {
    const vault = testVault();
    const path = indexPath(t);
    const before = ChunkIndex.open(path, vault.id);
    const names = await storeParts(vault, before, chunks);
    await refreshIndex(vault, before);
    before.close();
    damage(path);
    const told: AgentError[] = [];
    const index = ChunkIndex.open(path, vault.id);
    t.after(() => index.close());
    const reader = new PartReader(vault, index, { onDamage: (error) => told.push(error) });
    const read = await reader.getMany(names);
    for (const [i, chunk] of chunks.entries()) assert.ok(chunk.equals(read[i]!), `chunk ${i}`);
    assert.deepEqual(told, []);
    assert.ok(names.every((name) => index.has(name)));
    assert.ok(await sampleAgrees(vault, index, 100));
  });

test('damaged data in the store is reported after one look at the pack directory', async (t) => {
  const vault = testVault();
  const index = ChunkIndex.open(indexPath(t), vault.id);
  t.after(() => index.close());
  const names = await storeParts(vault, index, chunks);
  const [pack] = packIds(vault) as [string];
  const object = vault.memory.objects.get(packObject(pack))!;
  const altered = Buffer.from(object.data);
  altered[40]! ^= 1;
  vault.memory.objects.set(packObject(pack), { ...object, data: altered });
  const { generation } = index;
  const results = await Promise.allSettled(names.map((name) => new PartReader(vault, index).get(name)));
  const failed = results.flatMap((result) =>
    result.status === 'rejected' ? [result.reason as AgentError] : [],
  );
  assert.deepEqual(
    failed.map(({ code }) => code),
    ['VAULT_DAMAGED'],
  );
  assert.equal(index.generation, generation, 'the index is not rebuilt for it');
});

test('an altered row of a pack is damage, and the sample does not agree', async (t) => {
  const vault = testVault();
  const path = indexPath(t);
  const index = ChunkIndex.open(path, vault.id);
  t.after(() => index.close());
  await storeParts(vault, index, chunks.slice(0, 20));
  const flip = (): void => index.database.exec('UPDATE packs SET writer = zeroblob(16) WHERE number = 1');
  flip();
  assert.equal(await sampleAgrees(vault, index, 4), false);
  assert.equal(existsSync(path), false, 'the file was removed');
  index.reopenIfReplaced();
  await refreshIndex(vault, index);
  flip();
  assert.throws(() => [...index.packs()], { code: 'VAULT_INDEX_DAMAGED' });
  index.reopenIfReplaced();
  await refreshIndex(vault, index);
  assert.equal([...index.packs()].length, 1);
});

test('a sample detects an index that has more parts of a pack than the pack', async (t) => {
  const vault = testVault();
  const index = ChunkIndex.open(indexPath(t), vault.id);
  t.after(() => index.close());
  await storeParts(vault, index, chunks.slice(0, 20));
  assert.ok(await sampleAgrees(vault, index, 4));
  const [pack] = packIds(vault) as [string];
  const known = index.pack(pack)!;
  index.dropPack(pack);
  const part = {
    name: randomBytes(32),
    offset: 32,
    encodedLength: 100,
    plainLength: 100,
    encoding: 0,
  } as const;
  index.addPack({ ...known, parts: [part] });
  assert.ok(!(await sampleAgrees(vault, index, 4)));
});

test('an index that lost parts before its first refresh ended loses no data', async (t) => {
  const vault = testVault();
  const index = ChunkIndex.open(indexPath(t), vault.id);
  t.after(() => index.close());
  // Added by a writer, or by an interrupted refresh.
  const names = await storeParts(vault, index, chunks.slice(0, 20));
  index.database.exec(`DELETE FROM parts; UPDATE meta SET value = 1 WHERE key = 'begun'`);
  const reader = new PartReader(vault, index);
  await refreshIndex(vault, index);
  for (const [i, plain] of (await reader.getMany(names)).entries()) assert.ok(plain.equals(chunks[i]!));
});

test('an index that loses parts after the reader has rebuilt it loses no data', async (t) => {
  const vault = testVault();
  const index = ChunkIndex.open(indexPath(t), vault.id);
  t.after(() => index.close());
  const names = await storeParts(vault, index, chunks.slice(0, 20));
  // A cache of one part: the reader asks the index again.
  const reader = new PartReader(vault, index, { cacheBytes: 4096 });
  for (let damaged = 0; damaged < 3; damaged++) {
    index.database.exec('DELETE FROM parts');
    for (const [i, name] of names.entries()) assert.ok((await reader.get(name)).equals(chunks[i]!));
  }
});

test('a part is found although the index lacks it and every refresh finds new packs', async (t) => {
  const vault = testVault();
  const index = ChunkIndex.open(indexPath(t), vault.id);
  const others = ChunkIndex.open(indexPath(t), vault.id);
  t.after(() => [index, others].map((each) => each.close()));
  const [name] = (await storeParts(vault, index, chunks.slice(0, 20))) as [Buffer];
  index.database.exec('DELETE FROM parts');
  let more = 20;
  const store = {
    ...vault.memory,
    list: async function* (...args: Parameters<typeof vault.memory.list>) {
      await storeParts(vault, others, [chunks[more++]!]);
      yield* vault.memory.list(...args);
    },
  };
  assert.ok((await new PartReader({ ...vault, store }, index).get(name)).equals(chunks[0]!));
});

test('a good copy is found although another copy is damaged and the index lacks the good one', async (t) => {
  const vault = testVault();
  const index = ChunkIndex.open(indexPath(t), vault.id);
  t.after(() => index.close());
  const [name] = (await storeParts(vault, index, chunks.slice(0, 1))) as [Buffer];
  const [first] = packIds(vault) as [string];
  await storeParts(vault, index, chunks.slice(0, 1), { condemned: new Set([first]) });
  const object = vault.memory.objects.get(packObject(first))!;
  const altered = Buffer.from(object.data);
  altered[40]! ^= 1;
  vault.memory.objects.set(packObject(first), { ...object, data: altered });
  await refreshIndex(vault, index);
  index.database.exec('DELETE FROM parts WHERE pack = 2');
  const told: AgentError[] = [];
  const reader = new PartReader(vault, index, { onDamage: (error) => told.push(error) });
  assert.ok((await reader.get(name)).equals(chunks[0]!));
  assert.equal(told.length, 1, 'the damaged copy is reported');
});

test('an index that was built when the clock was ahead loses no data', async (t) => {
  const vault = testVault();
  const index = ChunkIndex.open(indexPath(t), vault.id);
  t.after(() => index.close());
  const names = await storeParts(vault, index, chunks.slice(0, 20));
  await refreshIndex(vault, index);
  index.database.exec(
    `DELETE FROM parts; UPDATE meta SET value = ${Date.now() + 3_600_000} WHERE key = 'built'`,
  );
  await new PartReader(vault, index).getMany(names);
});

test('a part that is not found while the index is rebuilt is looked up again', async (t) => {
  const vault = testVault();
  const index = ChunkIndex.open(indexPath(t), vault.id);
  t.after(() => index.close());
  const names = await storeParts(vault, index, chunks.slice(0, 20));
  await refreshIndex(vault, index);
  index.database.exec(`DELETE FROM parts WHERE name = (SELECT min(name) FROM parts);
                       UPDATE meta SET value = 1 WHERE key = 'built'`);
  const [missing] = names.filter((name) => !index.has(name));
  const at = names.findIndex((name) => index.has(name));
  let other: Promise<Buffer> | undefined;
  const store = {
    ...vault.memory,
    list: (prefix: string, options: object) => {
      // It searches the empty index now, and its refresh waits until all packs are added again.
      if (!index.has(names[at]!)) other ??= late.get(names[at]!);
      return vault.memory.list(prefix, options);
    },
  };
  const watched = { ...vault, store };
  const late = new PartReader(watched, index);
  await new PartReader(watched, index).get(missing!);
  assert.ok((await other)?.equals(chunks[at]!));
});
