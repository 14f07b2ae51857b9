import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { Bitmap } from '../base/bitmap.ts';
import { Chain } from '../tracking/chain.ts';
import { fingerprintUnit } from '../tracking/fingerprints.ts';
import { RecentUnits } from './recent-units.ts';
import { noteKept } from './send-missing.ts';
import type { JobUnit } from './unit.ts';

test('sectors that the freeze could not read stay pending on disk if the job ends before it completes', async (t) => {
  const parent = mkdtempSync(join(tmpdir(), 'kept-'));
  t.after(() => rmSync(parent, { recursive: true }));
  const size = 4 * fingerprintUnit;
  const subject = { uuid: 'ab', path: '/dev/sda1', size, partitionStart: 0, target: 'nbd://host/image' };
  const chain = await Chain.create(parent, subject, { targetSize: size, unit: 4096 });
  await chain.adopt();
  const kept = new Bitmap(size, 4096);
  kept.fill(true);
  const unit = {
    chain,
    recent: new RecentUnits(),
    pool: { used: kept, readErrors: [{ offset: 2 * fingerprintUnit + 512, length: 512 }] },
  } as unknown as JobUnit;
  // As the take before the freeze leaves it, when nothing had failed yet.
  chain.besides = new Bitmap(size, fingerprintUnit);
  await noteKept(unit, kept);
  assert.ok(chain.pending.isEmpty());
  const read = await Chain.open(parent, subject, 4096);
  assert.deepEqual(
    [...(read?.pending.extents() ?? [])],
    [{ offset: 2 * fingerprintUnit, length: fingerprintUnit }],
  );
});
