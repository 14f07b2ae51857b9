import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import os from 'node:os';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { MemorySource } from '../../../test/helpers/transfer-rig.ts';
import { impactLevels } from '../impact.ts';
import { Control } from './control.ts';
import { Manners } from './manners.ts';

const thread = readlinkSync('/proc/thread-self').split('/').at(-1)!;
const ioClass = (): string =>
  execFileSync('ionice', ['-p', thread], { encoding: 'utf8' }).split(':')[0]!.trim();

/** A source that records the I/O class and nice value of the thread when it reads. */
class TellingSource extends MemorySource {
  seen: [ioClass: string, nice: number] | undefined;
  override readInto(buffer: Uint8Array, offset: number): void {
    this.seen = [ioClass(), os.getPriority(0)];
    super.readInto(buffer, offset);
  }
}

test('reads are idle and nice within a considerate run, and unchanged before and after it', async () => {
  const manners = new Manners(impactLevels.low!, new Control(1));
  const source = new TellingSource(Buffer.alloc(4096));
  const considerate = manners.source(source);
  const nice = os.getPriority(0);
  const read = (): typeof source.seen => {
    considerate.readInto(Buffer.alloc(4096), 0);
    return source.seen;
  };
  assert.deepEqual(read(), ['none', nice]);
  // A thread becomes nice only if it may return to its old nice value.
  const inside = process.getuid?.() === 0 ? Math.max(nice, 10) : nice;
  assert.deepEqual(await manners.during(() => Promise.resolve(read())), ['idle', inside]);
  await assert.rejects(
    manners.during(() => Promise.reject(new Error('lost'))),
    /lost/,
  );
  assert.deepEqual(read(), ['none', nice]);
});

test('a thread waits while all rest, unless the job is stopped; urgent runs do not wait', async () => {
  const control = new Control(1);
  const manners = new Manners(impactLevels.normal!, control);
  control.share = 0;
  await manners.pause();
  for (const end of [() => (control.share = 0.5), () => (control.stopped = true)]) {
    control.share = 0;
    let over = false;
    const waiting = manners.during(() => manners.pause()).then(() => (over = true));
    await sleep(20);
    assert.equal(over, false);
    end();
    await waiting;
  }
});
