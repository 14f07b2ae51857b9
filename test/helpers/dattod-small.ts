/** dattod as it is, but with an eBPF tracker that has room for 16 writes on their way. */
import { prepareJob } from '../../src/backup/prepare.ts';
import { runDattod } from '../../src/daemon/run.ts';
import { findDevice } from '../../src/devices/find.ts';
import { listDevices } from '../../src/devices/inventory.ts';
import { removeLeftoverSnapshots } from '../../src/devices/lvm/snapshot.ts';
import { thawLeftovers } from '../../src/freeze/leftovers.ts';
import { tryLock } from '../../src/linux/flock.ts';
import { EbpfTracker } from '../../src/tracking/ebpf/tracker.ts';
import { trackerCandidates } from '../../src/tracking/candidates.ts';

process.exit(
  await runDattod(process.argv.slice(2), () =>
    Promise.resolve({
      prepareJob,
      listDevices,
      findDevice,
      thawLeftovers,
      removeLeftoverSnapshots,
      tryLock,
      trackerCandidates: (places) =>
        trackerCandidates(places)
          .filter(({ kind }) => kind === 'ebpf')
          .map((candidate) => ({
            ...candidate,
            open: () => EbpfTracker.open({ pinDirectory: places.pinDirectory, inFlightEntries: 16 }),
          })),
    }),
  ),
);
