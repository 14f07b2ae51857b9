import assert from 'node:assert/strict';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../base/bitmap.ts';
import { readBitmapFile, writeBitmapFile } from './bitmap-file.ts';
import { Chain, chainId, inUnit } from './chain.ts';

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

test('a new chain knows nothing: all is pending, no fingerprint counts', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  assert.equal(chain.pending.bytes(), subject.size);
  assert.equal(statSync(chain.fingerprintPath).size, 16 * 16);
  assert.equal(chain.record.state, 'incomplete');
  assert.equal(chain.key.length, 32);
});

test('what was saved is read again, also in another unit', async (t) => {
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

test('what counts as pending besides is on disk and not in memory', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  chain.pending.fill(false);
  const besides = new Bitmap(subject.size, 65536);
  besides.mark(65536, 1);
  chain.besides = besides;
  await chain.savePending();
  assert.equal(chain.pending.bytes(), 0);
  const again = await Chain.open(parent, subject, 4096);
  assert.deepEqual([...again!.pending.extents()], [{ offset: 65536, length: 65536 }]);
});

test('a chain without its fingerprints, or with too few, is damaged', async (t) => {
  const parent = folder(t);
  const chain = await created(parent);
  truncateSync(chain.fingerprintPath, 16);
  assert.equal(await Chain.open(parent, subject, 4096), undefined);
  rmSync(chain.fingerprintPath);
  assert.equal(await Chain.open(parent, subject, 4096), undefined);
  assert.ok(Chain.exists(parent, subject));
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

test('the folder follows the filesystem, not the name of its device', () => {
  assert.equal(chainId(subject), chainId({ ...subject, path: '/dev/sdb1' }));
  assert.notEqual(chainId(subject), chainId({ ...subject, uuid: '' }));
});

test('a bitmap comes back as it was written, and damaged it does not come back', async (t) => {
  const path = join(folder(t), 'map');
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 300 }),
      fc.array(fc.nat({ max: 300 * 4096 })),
      fc.nat(),
      async (units, marks, where) => {
        const bitmap = new Bitmap(units * 4096 - 9, 4096);
        for (const mark of marks) if (mark < bitmap.size) bitmap.mark(mark, 1);
        await writeBitmapFile(path, bitmap);
        const again = await readBitmapFile(path);
        assert.deepEqual(again?.words, bitmap.words);
        const bytes = readFileSync(path);
        bytes[where % bytes.length]! ^= 0x10;
        writeFileSync(path, bytes);
        assert.equal(await readBitmapFile(path), undefined);
      },
    ),
    { numRuns: 30 },
  );
});

test('a coarser map holds all of a finer one', () => {
  const fine = new Bitmap(1_000_000, 4096);
  fine.mark(70_000, 1);
  fine.mark(999_999, 1);
  const coarse = inUnit(fine, 65536);
  assert.deepEqual(
    [...coarse.extents()].map(({ offset }) => offset),
    [65536, 983040],
  );
});

test('what the target may hold is empty where nothing, or nothing that fits, is recorded', async (t) => {
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
