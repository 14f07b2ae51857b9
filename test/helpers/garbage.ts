/**
 * Measures the memory that is really held, after the collector has run. So the collector's timing decides
 * nothing.
 */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Returns the bytes that array buffers hold. */
export function heldByBuffers(): number {
  collect();
  return process.memoryUsage().arrayBuffers;
}

/** Asserts that array buffers hold less than `limit` bytes. The collector frees them some time after it has run. */
export async function assertBuffersBelow(limit: number): Promise<void> {
  const deadline = Date.now() + 10_000;
  let held = heldByBuffers();
  while (held >= limit && Date.now() < deadline) {
    await sleep(20);
    held = heldByBuffers();
  }
  assert.ok(held < limit, `buffers hold ${held} bytes, and may hold ${limit}`);
}
