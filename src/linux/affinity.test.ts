import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import {
  moveThreadTo,
  onlineProcessors,
  parseProcessorList,
  setThreadProcessors,
  threadProcessors,
} from './affinity.ts';

test('a thread moves to each processor that it may run on, and back to all of them', () => {
  const before = threadProcessors();
  try {
    for (const processor of onlineProcessors())
      if ((before[processor >>> 3]! & (1 << (processor & 7))) !== 0) {
        assert.equal(moveThreadTo(processor), true);
        const status = readFileSync('/proc/thread-self/status', 'latin1');
        assert.equal(/^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1], String(processor));
      }
    assert.equal(moveThreadTo(8000), false);
  } finally {
    setThreadProcessors(before);
  }
  assert.deepEqual(threadProcessors(), before);
});

test('lists of processors in the format of the kernel are parsed', () => {
  assert.deepEqual(parseProcessorList('0\n'), [0]);
  assert.deepEqual(parseProcessorList('0-3,8,10-11\n'), [0, 1, 2, 3, 8, 10, 11]);
  assert.deepEqual(parseProcessorList('\n'), []);
});
