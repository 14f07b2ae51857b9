import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GiB, MiB } from '../../base/bytes.ts';
import { affordedConnections, memoryNeed } from './memory-need.ts';

const left = (withSwap: number, group?: string) => ({ bytes: 0, withSwap, group });

test('all connections if they fit, else one per device, else a refusal with the limit and the need', () => {
  const device = { size: GiB, intoVault: true };
  const [one, two] = [memoryNeed([device], 1), memoryNeed([device], 2)];
  assert.equal(affordedConnections([device], 2, left(two)), 2);
  assert.equal(affordedConnections([device], 2, left(two - 1)), 1);
  assert.equal(affordedConnections([device], 2, left(one)), 1);
  assert.throws(() => affordedConnections([device], 2, left(40 * MiB, '/sys/fs/cgroup/a')), {
    code: 'NOT_ENOUGH_MEMORY',
    message:
      'A backup of one device takes about 132.00 MiB of memory, and the control group /sys/fs/cgroup/a has 40.00 MiB left',
    hint: "raise the group's limit (MemoryMax= of a systemd unit)",
  });
  assert.throws(() => affordedConnections([device, device], 2, left(40 * MiB)), {
    message: /^A backup of 2 devices .* this machine has 40\.00 MiB left$/,
    hint: 'end other programs, or back up fewer devices in one job',
  });
});

test('24 small devices into a vault need only the memory that fills their packs', () => {
  const small = Array.from({ length: 24 }, () => ({ size: MiB, intoVault: true }));
  assert.ok(memoryNeed(small, 1) < 800 * MiB);
  assert.ok(memoryNeed([{ size: 100 * GiB, intoVault: false }], 1) < 80 * MiB);
});
