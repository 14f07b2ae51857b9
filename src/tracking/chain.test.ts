import assert from 'node:assert/strict';
import fs, {
  cpSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../base/bitmap.ts';
import { readBitmapFile, writeBitmapFile } from './bitmap-file.ts';
import { inUnit } from './bitmap-units.ts';
import { Chain, chainId } from './chain.ts';
import { fromNumber } from './generation.ts';

const subject = {
  uuid: 'ab-cd',
  path: '/dev/sda1',
  size: 1_000_000,
  partitionStart: 1 << 20,
  target: 'nbd://host/image',
};

function folder(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'chain-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

async function created(parent: string, unit = 4096, target = subject.target): Promise<Chain> {
  const chain = await Chain.create(parent, { ...subject, target }, { targetSize: 5, unit });
  await chain.adopt();
  return chain;
}

async function ids(parent: string): Promise<string[]> {
  const found: string[] = [];
  for await (const { record } of Chain.all(parent, 4096)) found.push(record.id);
  return found.sort();
}

test('in a new chain, all is pending and no fingerprint counts', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  assert.equal(chain.pending.bytes(), subject.size);
  assert.equal(statSync(chain.fingerprintPath).size, 16 * 16);
  assert.equal(chain.record.state, 'incomplete');
  assert.equal(chain.key.length, 32);
});

test('a saved chain is read again, also in another unit', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  chain.pending.fill(false);
  chain.pending.mark(8192, 1);
  await chain.savePending();
  await chain.save({ state: 'complete', epoch: { id: 'e', since: 1 }, job: 'j' });
  const again = await Chain.open(parent, subject, 65536);
  assert.equal(again?.record.state, 'complete');
  assert.deepEqual(again.record.epoch, { id: 'e', since: 1 });
  assert.deepEqual([...again.pending.extents()], [{ offset: 0, length: 65536 }]);
  assert.deepEqual(again.key, chain.key);
  assert.equal(await Chain.open(parent, { ...subject, target: 'nbd://other/image' }, 4096), undefined);
  const others = await created(parent, 4096, 'nbd://other/image');
  assert.deepEqual(await ids(parent), [chain.record.id, others.record.id].sort());
});

test('a new chain leaves the earlier one alone until it takes its place', async (t) => {
  const parent = folder(t);
  const first = await created(parent);
  await first.save({ state: 'complete' });
  const second = await Chain.create(parent, subject, { targetSize: 5, unit: 4096 });
  assert.equal((await Chain.open(parent, subject, 4096))?.record.key, first.record.key);
  assert.deepEqual(await ids(parent), [first.record.id]);
  await second.remove();
  const third = await Chain.create(parent, subject, { targetSize: 5, unit: 4096 });
  await third.adopt();
  await third.save({ job: 'after' });
  const now = await Chain.open(parent, subject, 4096);
  assert.deepEqual([now?.record.key, now?.record.job], [third.record.key, 'after']);
  assert.deepEqual(readdirSync(parent), [third.record.id]);
});

test('blocks in `unconfirmed` are pending on disk and not in memory', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  chain.pending.fill(false);
  const unconfirmed = new Bitmap(subject.size, 65536);
  unconfirmed.mark(65536, 1);
  chain.unconfirmed = unconfirmed;
  await chain.savePending();
  assert.equal(chain.pending.bytes(), 0);
  const again = await Chain.open(parent, subject, 4096);
  assert.deepEqual([...again!.pending.extents()], [{ offset: 65536, length: 65536 }]);
});

/** Copies of the chains as each power failure during `work` would leave them: around every rename. */
async function cutsOf(t: TestContext, parent: string, work: () => Promise<void>): Promise<string[]> {
  const cuts: string[] = [];
  const cut = (): void => {
    const copy = folder(t);
    cpSync(parent, copy, { recursive: true });
    cuts.push(copy);
  };
  const { rename } = fs.promises;
  const mocked = t.mock.method(fs.promises, 'rename', async (from: string, to: string) => {
    cut();
    await rename(from, to);
    cut();
  });
  syncBuiltinESMExports();
  try {
    await work();
  } finally {
    mocked.mock.restore();
    syncBuiltinESMExports();
  }
  return cuts;
}

const base = (point: string) => ({ point, root: 'ab', levels: 1, index: 'i' });

test('an interruption at the end of a vault job leaves the old image and all sent blocks, or the new image', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  const [sent, left] = [new Bitmap(subject.size, 4096), new Bitmap(subject.size, 4096)];
  sent.mark(8192, 40_960);
  left.mark(500_000, 1);
  // The job before this one; then the pending blocks are sent.
  chain.pending.fill(false);
  chain.pending.or(sent);
  await chain.complete({ base: base('old'), job: 'first', targetSize: 5 });
  chain.unpublished = sent.clone();
  chain.pending.fill(false);
  chain.pending.or(left);
  await chain.savePending();

  const cuts = await cutsOf(t, parent, () => chain.complete({ base: base('new'), job: 'second' }));
  const seen: string[] = [];
  for (const copy of cuts) {
    const { record, pending } = (await Chain.open(copy, subject, 4096))!;
    const lost = left.clone();
    if (record.base?.point === 'old') lost.or(sent);
    lost.andNot(pending);
    assert.ok(lost.isEmpty(), `the image ${record.base?.point ?? ''} lacks blocks that are not pending`);
    assert.deepEqual(
      [record.job, record.state],
      [record.base?.point === 'old' ? 'first' : 'second', 'complete'],
    );
    seen.push(`${record.base?.point ?? ''} ${pending.count()}`);
  }
  // Three durable writes: the pending map with the unpublished blocks, the record, the pending map without those
  // blocks.
  assert.deepEqual(seen, ['old 11', 'old 11', 'old 11', 'new 11', 'new 11', 'new 1']);
  assert.equal(chain.unpublished, undefined);
});

test('a record says complete only when the pending map is durable', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  chain.pending.fill(false);
  chain.pending.mark(8192, 1);
  await chain.savePending();
  await chain.save({ torn: true });
  chain.pending.mark(65536, 1);
  const cuts = await cutsOf(t, parent, () => chain.complete({ job: 'j', epoch: { id: 'e', since: 1 } }));
  const seen = [];
  for (const copy of cuts) {
    const { record, pending } = (await Chain.open(copy, subject, 4096))!;
    seen.push([record.state, record.torn, pending.count()]);
  }
  assert.deepEqual(seen, [
    ['incomplete', true, 1],
    ['incomplete', true, 2],
    ['incomplete', true, 2],
    ['complete', false, 2],
  ]);
});

test('a chain without its fingerprints, or with too few, is damaged', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  truncateSync(chain.fingerprintPath, 16);
  assert.equal(await Chain.open(parent, subject, 4096), undefined);
  rmSync(chain.fingerprintPath);
  assert.equal(await Chain.open(parent, subject, 4096), undefined);
  assert.ok(await Chain.exists(parent, subject));
});

test('generations count only if the record and the pending map both name them', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  const [a, b, c] = ['00000000000000aa', 'ffffffffffffffff', '0123456789abcdef'];
  const epoch = { id: 'e', since: 1 };
  await chain.save({ epoch });
  const recorded = async () => (await Chain.open(parent, subject, 4096))!;
  assert.deepEqual((await recorded()).record.generations, []);
  await chain.saveTaken([a, b]);
  assert.ok((await recorded()).isInStep(epoch, a) && (await recorded()).isInStep(epoch, b));
  assert.ok(!(await recorded()).isInStep({ id: 'other', since: 1 }, a));
  const older = ['chain.json', 'pending'].map((name) => join(chain.directory, name));
  const copies = older.map((path) => readFileSync(path));
  await chain.saveTaken([b, c]);
  for (const [i, path] of older.entries()) {
    const now = readFileSync(path);
    writeFileSync(path, copies[i]!);
    assert.deepEqual((await recorded()).record.generations, [b], path);
    writeFileSync(path, now);
  }
  assert.deepEqual((await recorded()).record.generations, [b, c]);
  await chain.complete({ epoch, generations: [c] });
  assert.deepEqual((await recorded()).record.generations, [c]);
  await chain.complete({ epoch: null });
  assert.deepEqual((await recorded()).record.generations, []);
});

test('the record and the pending map of an older version are read, and name no generation', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  const { generations: none, ...record } = { ...chain.record, epoch: { id: 'e', since: 1 } };
  assert.equal(none, undefined);
  writeFileSync(join(chain.directory, 'chain.json'), JSON.stringify(record));
  const again = await Chain.open(parent, subject, 4096);
  assert.deepEqual(again?.record.generations, []);
  assert.equal(again.pending.bytes(), subject.size);
});

for (const [code, fails] of [
  ['EIO', /chain\.json cannot be read: EIO/],
  ['EMFILE', /pending cannot be read: EMFILE/],
  ['EACCES', /fingerprints cannot be read: EACCES/],
] as const)
  test(`${code} is not mistaken for absence: ${fails.source}`, async (t) => {
    const parent = folder(t);
    const chain = await created(parent);
    const other = await created(parent, 4096, 'nbd://other/image');
    const { readFile, stat } = fs.promises;
    const failing = <Call extends (path: string, ...rest: never[]) => Promise<unknown>>(call: Call) =>
      (async (path: string, ...rest: never[]) => {
        if (path.startsWith(chain.directory) && fails.test(`${path} cannot be read: ${code}`))
          throw Object.assign(new Error(code), { code });
        return call(path, ...rest);
      }) as unknown as Call;
    t.mock.method(fs.promises, 'readFile', failing(readFile as never));
    t.mock.method(fs.promises, 'stat', failing(stat as never));
    syncBuiltinESMExports();
    t.after(() => syncBuiltinESMExports());
    const expected = { code: 'FILE_ERROR', message: fails };
    await assert.rejects(Chain.open(parent, subject, 4096), expected);
    await assert.rejects(ids(parent), expected);
    // A caller that can do without the unreadable chain gets a report of it, and all other chains.
    const seen: string[] = [];
    const said: string[] = [];
    for await (const { record } of Chain.all(parent, 4096, undefined, ({ message }) => said.push(message)))
      seen.push(record.id);
    assert.deepEqual([seen, said.length], [[other.record.id], 1]);
    assert.match(said[0]!, fails);
    t.mock.restoreAll();
    syncBuiltinESMExports();
    assert.equal((await ids(parent)).length, 2);
  });

test('a reset forgets everything but the key', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  chain.pending.fill(false);
  writeFileSync(chain.fingerprintPath, Buffer.alloc(256, 7));
  await chain.save({ state: 'complete' });
  await chain.reset(9);
  assert.equal(chain.pending.bytes(), subject.size);
  assert.ok(readFileSync(chain.fingerprintPath).equals(Buffer.alloc(256)));
  const again = await Chain.open(parent, subject, 4096);
  assert.equal(again?.record.state, 'incomplete');
  assert.equal(again.record.targetSize, 9);
});

test("the folder's name follows the filesystem, not the name of its device", () => {
  assert.equal(chainId(subject), chainId({ ...subject, path: '/dev/sdb1' }));
  assert.notEqual(chainId(subject), chainId({ ...subject, uuid: '' }));
});

test('the folders of two devices with one filesystem UUID differ in a vault', () => {
  const clone = { ...subject, cloned: true };
  assert.notEqual(chainId(clone), chainId({ ...clone, path: '/dev/sdb1' }));
  assert.notEqual(chainId(clone), chainId(subject));
});

test('a bitmap is read as it was written, and a damaged one is not read', async (t) => {
  const path = join(folder(t), 'map');
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 300 }),
      fc.array(fc.nat({ max: 300 * 4096 })),
      fc.nat(),
      fc.array(fc.bigInt({ min: 1n, max: 2n ** 64n - 1n }), { maxLength: 2 }),
      async (units, marks, where, numbers) => {
        const generations = numbers.map((number) => fromNumber(number)!);
        const bitmap = new Bitmap(units * 4096 - 9, 4096);
        for (const mark of marks) if (mark < bitmap.size) bitmap.mark(mark, 1);
        await writeBitmapFile(path, bitmap, generations);
        const again = await readBitmapFile(path);
        assert.deepEqual(again?.bitmap.content, bitmap.content);
        assert.deepEqual(again.generations, generations);
        const bytes = readFileSync(path);
        bytes[where % bytes.length]! ^= 0x10;
        writeFileSync(path, bytes);
        assert.equal(await readBitmapFile(path), undefined);
      },
    ),
    { numRuns: 30 },
  );
});

test('a coarser map covers all of a finer one', () => {
  const fine = new Bitmap(1_000_000, 4096);
  fine.mark(70_000, 1);
  fine.mark(999_999, 1);
  const coarse = inUnit(fine, 65536);
  assert.deepEqual(
    [...coarse.extents()].map(({ offset }) => offset),
    [65536, 983040],
  );
});

test('the map of held blocks is empty if none is recorded or if the recorded one has another size', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  assert.ok((await chain.readHeld()).isEmpty());
  const held = new Bitmap(subject.size, 4096);
  held.mark(8192, 4096);
  await chain.saveHeld(held);
  assert.deepEqual([...(await chain.readHeld()).extents()], [{ offset: 8192, length: 4096 }]);
  const coarser = await Chain.open(parent, subject, 65536);
  assert.deepEqual([...(await coarser!.readHeld()).extents()], [{ offset: 0, length: 65536 }]);
  await writeBitmapFile(join(chain.directory, 'held'), new Bitmap(500_000, 4096));
  assert.ok((await chain.readHeld()).isEmpty());
});
