/**
 * Proves that the freeze of a tracked device does not depend on its size. On a large, sparse filesystem with
 * small changes it reads again only the map of few groups, and the image has the changes.
 * bench/freeze-size.ts measures the time.
 */
import assert from 'node:assert/strict';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { GiB, MiB } from '../../src/base/bytes.ts';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import { backUpWell, daemonFor, scratchFor } from '../helpers/backup.ts';
import { assertSameFiles } from '../helpers/image-proof.ts';
import { makeLarge, mapReadings } from '../helpers/large-device.ts';

const support = await trackingSupport();
const skip = support.supported ? false : support.why;

for (const [filesystem, size] of [
  ['ext4', 64 * GiB],
  ['xfs', 96 * GiB],
] as const)
  test(`${filesystem} of ${size / GiB} GiB: a freeze reads the groups that changed`, { skip }, async (t) => {
    const daemon = await daemonFor(t, { tracking: true });
    const { device, mountPoint } = await makeLarge(t, filesystem, size);
    for (let i = 0; i < 40; i++) {
      mkdirSync(join(mountPoint, `d${i}`));
      writeFileSync(join(mountPoint, `d${i}`, 'file'), Buffer.alloc(100_000, i + 1));
    }
    const scratch = scratchFor(t, { memory: true });
    const args = ['--device', device, '--target', join(scratch, 'image')];
    await backUpWell(daemon, args);
    const first = mapReadings(daemon, device);
    assert.equal(first[0]?.groupsRead, first[0]?.groups, 'the first reading is whole');
    assert.ok(first[0]!.state === 'live', 'and not in a freeze');

    writeFileSync(join(mountPoint, 'd3', 'new'), 'new');
    writeFileSync(join(mountPoint, 'd17', 'large'), Buffer.alloc(2 * MiB, 7));
    rmSync(join(mountPoint, 'd20'), { recursive: true });
    const status = await backUpWell(daemon, args, '--incremental');
    assert.equal(status.devices[0]?.kind, 'incremental');

    const readings = mapReadings(daemon, device);
    const frozen = readings.filter(({ state }) => state === 'frozen');
    t.diagnostic(
      JSON.stringify(readings.map(({ state, ms, groupsRead }) => [state, Math.round(ms), groupsRead])),
    );
    assert.equal(frozen.length, 2, 'one for each job');
    for (const { groups, groupsRead, whyAll } of frozen) {
      assert.equal(whyAll, undefined);
      // Directories are spread over all groups: ext4 has 512 and XFS 4.
      assert.ok(groupsRead <= (filesystem === 'ext4' ? 64 : groups), `${groupsRead} of ${groups} groups`);
    }
    await assertSameFiles(filesystem, args[3]!, mountPoint, scratch);
  });
