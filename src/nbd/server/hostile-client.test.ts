import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { MiB } from '../../base/bytes.ts';
import {
  conversation,
  converse,
  CountedExports,
  exportSize,
} from '../../../test/helpers/nbd-client-grammar.ts';
import { DirectoryExports } from './directory-exports.ts';

// A longer run: NBD_FUZZ_RUNS=20000 scripts/node --test src/nbd/server/hostile-client.test.ts
const runs = Number(process.env['NBD_FUZZ_RUNS'] ?? 60);
const seed = Number(process.env['NBD_FUZZ_SEED'] ?? 9);

test('for any input of a client, its connection ends, and its backend is closed once, after the last request', async () => {
  const exports = new CountedExports();
  await fc.assert(
    fc.asyncProperty(conversation, async (said) => {
      await converse(said, exports);
      assert.equal(exports.openNow, 0, 'a backend is not closed');
    }),
    { numRuns: runs, seed },
  );
  assert.ok(exports.opened > runs / 10, `the grammar reaches transmission: ${exports.opened} of ${runs}`);
});

test('for any input of a client with real images, no descriptor and little memory is left', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'hostile-client-'));
  t.after(() => rmSync(directory, { recursive: true }));
  writeFileSync(join(directory, 'disk'), Buffer.alloc(exportSize, 7));
  const exports = new DirectoryExports({ directory, readOnly: false, create: true, defaultExport: 'disk' });
  const descriptors = () => readdirSync('/proc/self/fd').length;
  const before = { descriptors: descriptors(), memory: process.memoryUsage().rss };
  await fc.assert(
    fc.asyncProperty(conversation, (said) => converse(said, exports)),
    { numRuns: runs, seed: seed + 1 },
  );
  assert.ok(
    descriptors() <= before.descriptors,
    `${descriptors()} descriptors, ${before.descriptors} before`,
  );
  const grown = (process.memoryUsage().rss - before.memory) / MiB;
  t.diagnostic(`${runs} conversations, ${grown.toFixed(0)} MiB more`);
  assert.ok(grown < 400, `${grown} MiB more`);
});
