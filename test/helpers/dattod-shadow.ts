/** dattod as it is, but with the tracker of shadow-tracker.ts, over the directory in DATTO_SHADOW. */
import { prepareJob } from '../../src/backup/prepare.ts';
import { runDattod } from '../../src/daemon/run.ts';
import { removeLeftoverSnapshots } from '../../src/devices/lvm/snapshot.ts';
import { findDevice } from '../../src/devices/find.ts';
import { listDevices } from '../../src/devices/inventory.ts';
import { thawLeftovers } from '../../src/freeze/leftovers.ts';
import { tryLock } from '../../src/linux/flock.ts';
import { shadowCandidate } from './shadow-tracker.ts';

process.exit(
  await runDattod(process.argv.slice(2), () =>
    Promise.resolve({
      prepareJob,
      listDevices,
      findDevice,
      thawLeftovers,
      removeLeftoverSnapshots,
      tryLock,
      trackerCandidates: () => [shadowCandidate(process.env['DATTO_SHADOW'] ?? '/nonexistent')],
    }),
  ),
);
