import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { KernelTypes } from './kernel-types.ts';
import { programsDigest } from './program-set.ts';

const types: KernelTypes = {
  bioToDisk: [8, 16],
  requestToDisk: [0, 104],
  ...{ diskMajor: 0, diskMinor: 4 },
  ...{ bioFlags: 16, bioSector: 32, bioSize: 40, bioNext: 0, bioPrivate: 64 },
  ...{ requestBio: 56, requestFlags: 24, requestSector: 48, requestLength: 44 },
  operations: { discard: 3, zoneAppend: 7, zoneResets: [15, 17] },
  tracepoints: {
    block_rq_issue: { name: 'block_rq_issue', id: 1, argument: 0 },
    block_rq_complete: { name: 'block_rq_complete', id: 2, argument: 0 },
    block_bio_queue: { name: 'block_bio_queue', id: 3, argument: 0 },
    block_bio_complete: { name: 'block_bio_complete', id: 4, argument: 8 },
  },
};

test('the digest of the programs is always the same, and differs for other instructions', () => {
  const digest = programsDigest(types, 'bits');
  assert.match(digest, /^[0-9a-f]{16}$/);
  assert.equal(programsDigest(types, 'bits'), digest);
  const others = [
    programsDigest(types, 'bytes'),
    programsDigest({ ...types, requestSector: 56 }, 'bits'),
    programsDigest({ ...types, operations: { ...types.operations, zoneResets: [] } }, 'bits'),
  ];
  assert.equal(new Set([digest, ...others]).size, 4);
});
