/** The real dattod with another tracker, or with other collaborators replaced. */
import { prepareJob } from '../../src/backup/prepare/prepare-job.ts';
import type { Collaborators } from '../../src/daemon/collaborators.ts';
import { runDattod } from '../../src/daemon/run.ts';
import { findDevice } from '../../src/devices/find.ts';
import { listDevices } from '../../src/devices/inventory.ts';
import { removeLeftoverSnapshots } from '../../src/devices/lvm/snapshot.ts';
import { thawLeftovers } from '../../src/freeze/leftovers.ts';
import { tryLock } from '../../src/linux/flock.ts';

/** Runs dattod with the arguments of this process, and ends the process with it. */
export async function dattodWith(
  trackerCandidates: Collaborators['trackerCandidates'],
  others: Partial<Collaborators> = {},
): Promise<never> {
  const collaborators: Collaborators = {
    ...{ prepareJob, listDevices, findDevice, thawLeftovers, removeLeftoverSnapshots, tryLock },
    trackerCandidates,
    ...others,
  };
  process.exit(await runDattod(process.argv.slice(2), () => Promise.resolve(collaborators)));
}
