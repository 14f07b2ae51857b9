import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { readAttachment, refuseChanged } from './attachment.ts';
import { lookAtWrites, nothingWritten, writtenBehind } from './write-watch.ts';

interface Counters {
  read?: number;
  written?: number;
  discarded?: number;
  underWay?: number;
}

/** Makes /sys with the disk `fda` (8:0) and its partitions `fda1` (8:1) and `fda2` (8:2). */
function machine(t: TestContext): {
  readonly sys: string;
  readonly set: (name: string, counters: Counters) => void;
  readonly write: (name: string, attribute: string, text: string) => void;
} {
  const sys = mkdtempSync(join(tmpdir(), 'write-watch-'));
  t.after(() => rmSync(sys, { recursive: true }));
  const disk = join(sys, 'block/fda');
  const place = (name: string): string => (name === 'fda' ? disk : join(disk, name));
  const write = (name: string, attribute: string, text: string): void =>
    writeFileSync(join(place(name), attribute), `${text}\n`);
  const set = (name: string, { read = 0, written = 0, discarded = 0, underWay = 0 }: Counters): void => {
    // Requests, merges, sectors and milliseconds of reads, then of writes; three other fields; discards; flushes.
    write(name, 'stat', `1 0 ${read} 1 9 0 ${written} 1 0 1 1 5 0 ${discarded} 1 77 1`);
    write(name, 'inflight', `       0        ${underWay}`);
  };
  mkdirSync(join(sys, 'dev/block'), { recursive: true });
  for (const [minor, name] of ['fda', 'fda1', 'fda2'].entries()) {
    mkdirSync(join(place(name), 'queue'), { recursive: true });
    symlinkSync(place(name), join(sys, 'dev/block', `8:${minor}`));
    set(name, {});
    write(name, 'size', '1000');
    if (name !== 'fda') {
      write(name, 'partition', String(minor));
      write(name, 'start', String(minor * 100));
    }
  }
  write('fda', 'queue/iostats', '1');
  write('fda', 'diskseq', '7');
  return { sys, set, write };
}

const disk = { kind: 'disk', path: '/dev/fda', major: 8, minor: 0 } as const;
const partition = { kind: 'partition', path: '/dev/fda1', major: 8, minor: 1 } as const;

test('writes, discards and writes in progress are seen; reads and flushes do not count', async (t) => {
  const { sys, set } = machine(t);
  const cases: [before: Counters, after: Counters, expected: boolean | undefined][] = [
    [{}, { read: 8 }, true],
    [{}, { read: 8, written: 8 }, false],
    [{}, { read: 8, discarded: 8 }, false],
    [{ underWay: 1 }, { read: 8 }, true],
    [{}, { read: 8, underWay: 1 }, false],
    // The driver does not count our reads.
    [{}, {}, undefined],
  ];
  for (const [before, after, expected] of cases) {
    set('fda', before);
    const first = await lookAtWrites(disk, sys);
    set('fda', after);
    const second = await lookAtWrites(disk, sys);
    assert.equal(nothingWritten(disk, first, second), expected, JSON.stringify([before, after]));
  }
});

test('the answer is undefined if the kernel does not count, or if the device is gone', async (t) => {
  const { sys, write } = machine(t);
  write('fda', 'queue/iostats', '0');
  const look = await lookAtWrites(disk, sys);
  assert.equal(nothingWritten(disk, look, await lookAtWrites(disk, sys)), undefined);
  const gone = await lookAtWrites({ ...disk, minor: 9 }, sys);
  assert.equal(nothingWritten(disk, gone, gone), undefined);
});

test('for a partition, writes through the disk count, and writes to other partitions do not', async (t) => {
  const { sys, set } = machine(t);
  const before = await lookAtWrites(partition, sys);
  const look = async (other: number, whole: number): Promise<boolean | undefined> => {
    set('fda1', { read: 8 });
    set('fda2', { written: other });
    set('fda', { read: 8, written: whole });
    return nothingWritten(partition, before, await lookAtWrites(partition, sys));
  };
  assert.equal(await look(0, 0), true);
  assert.equal(await look(80, 80), true);
  assert.equal(await look(80, 88), false);
  set('fda1', { read: 8, written: 8 });
  set('fda', { read: 8, written: 96 });
  assert.equal(nothingWritten(partition, before, await lookAtWrites(partition, sys)), false);
});

test('a change of the file behind a loop device counts only if the loop device was not written to', async (t) => {
  const { sys, set, write } = machine(t);
  const file = join(sys, 'image');
  mkdirSync(join(sys, 'block/fda/loop'));
  writeFileSync(file, 'a');
  write('fda', 'loop/backing_file', file);
  const before = await lookAtWrites(partition, sys);
  writeFileSync(file, 'bc');
  set('fda1', { read: 8 });
  const behind = await lookAtWrites(partition, sys);
  assert.deepEqual([writtenBehind(before, behind), nothingWritten(partition, before, behind)], [true, false]);
  set('fda', { read: 8, written: 8 });
  set('fda2', { written: 8 });
  const through = await lookAtWrites(partition, sys);
  assert.deepEqual(
    [writtenBehind(before, through), nothingWritten(partition, before, through)],
    [false, true],
  );
});

test('a change of an image file is seen by its times', async (t) => {
  const { sys } = machine(t);
  const file = { kind: 'file', path: join(sys, 'image'), major: 0, minor: 0 } as const;
  writeFileSync(file.path, 'a');
  const before = await lookAtWrites(file);
  assert.equal(nothingWritten(file, before, await lookAtWrites(file)), true);
  writeFileSync(file.path, 'bc');
  assert.equal(nothingWritten(file, before, await lookAtWrites(file)), false);
});

test('a device that was replaced, or has another size, is refused', (t) => {
  const { sys, write } = machine(t);
  const before = readAttachment(partition, sys)!;
  refuseChanged(partition, before, sys);
  const changes: [name: string, attribute: string, value: string, message: RegExp][] = [
    ['fda1', 'size', '1008', /has 516096 bytes now, and had 512000/],
    ['fda1', 'start', '108', /its first sector is 108 now, and was 100/],
    ['fda', 'diskseq', '8', /its disk sequence number is 8 now, and was 7/],
  ];
  for (const [name, attribute, value, message] of changes) {
    write(name, attribute, value);
    assert.throws(() => refuseChanged(partition, before, sys), { code: 'DEVICE_GONE', message });
    write(name, 'size', '1000');
    if (attribute === 'start') write(name, 'start', '100');
  }
  rmSync(join(sys, 'dev/block/8:1'));
  assert.throws(() => refuseChanged(partition, before, sys), { code: 'DEVICE_GONE', message: /is gone/ });
});
