/** Copying threads serve one job after another, are limited in number, and never end because an earlier job ended. */
import assert from 'node:assert/strict';
import { readFileSync, readdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { Bitmap } from '../../base/bitmap.ts';
import { MiB } from '../../base/bytes.ts';
import { parseTarget } from './targets.ts';
import { CopyPool } from './pool.ts';
import { SpoolRoom } from './spool-room.ts';

const size = MiB;

/** Copies a file filled with `byte` to another file, and returns the open pool. */
async function copied(t: TestContext, byte: number): Promise<CopyPool> {
  const directory = mkdtempSync(join(tmpdir(), 'idle-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  const [sourcePath, targetPath] = [join(directory, 'source'), join(directory, 'target')];
  writeFileSync(sourcePath, Buffer.alloc(size, byte));
  writeFileSync(targetPath, Buffer.alloc(size));
  const pool = new CopyPool({
    ...{
      sourcePath,
      deviceSize: size,
      livePartitions: [],
      target: parseTarget(targetPath),
      threads: 1,
      unit: 4096,
    },
    ...{ fingerprintPath: undefined, key: Buffer.alloc(32, 7), rate: undefined, onReadError: 'fail' },
    ...{ room: SpoolRoom.create(MiB), reconnectMs: 0 },
  });
  await pool.open();
  await pool.copy(everything());
  assert.ok(readFileSync(targetPath).equals(Buffer.alloc(size, byte)));
  return pool;
}

function everything(): Bitmap {
  const set = new Bitmap(size, 4096);
  set.fill(true);
  return set;
}

/** Kernel ids of the copying threads of this process. */
function copyingThreads(): string[] {
  const nameOf = (id: string): string => {
    try {
      return readFileSync(`/proc/self/task/${id}/comm`, 'utf8');
    } catch {
      // A thread of the runtime may have ended since the list was read.
      return '';
    }
  };
  return readdirSync('/proc/self/task')
    .filter((id) => nameOf(id) === 'copy\n')
    .sort();
}

test('jobs that follow each other share a thread, and each gets its own data', async (t) => {
  const first = await copied(t, 1);
  const threads = copyingThreads();
  assert.equal(threads.length, 1);
  await first.close();
  for (const byte of [2, 3, 4]) {
    const pool = await copied(t, byte);
    assert.deepEqual(copyingThreads(), threads);
    await pool.close();
  }
});

test('a thread whose job was aborted serves no other job, and a late abort reaches no other job', async (t) => {
  const aborted = await copied(t, 5);
  const before = copyingThreads();
  aborted.stop();
  await aborted.close();
  const next = await copied(t, 6);
  assert.ok(copyingThreads().every((id) => !before.includes(id)));
  aborted.stop();
  await next.copy(everything());
  await next.close();
  assert.equal(copyingThreads().length, 1);
});

test('if many threads have ended their jobs, eight wait for the next job', async (t) => {
  const pools = await Promise.all(Array.from({ length: 12 }, (_, i) => copied(t, i)));
  assert.equal(copyingThreads().length, 12);
  await Promise.all(pools.map((pool) => pool.close()));
  const deadline = Date.now() + 30_000;
  while (copyingThreads().length > 8 && Date.now() < deadline)
    await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(copyingThreads().length, 8);
});
