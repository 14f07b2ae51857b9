/** The real dattod with another tracker, or with other dependencies replaced. */
import { prepareJob } from '../../src/backup/prepare/prepare-job.ts';
import type { DaemonDependencies } from '../../src/daemon/daemon-dependencies.ts';
import { runDattod } from '../../src/daemon/run.ts';
import { findDevice } from '../../src/devices/find.ts';
import { listDevices } from '../../src/devices/inventory.ts';
import { removeLeftoverSnapshots } from '../../src/devices/lvm/snapshot.ts';
import { thawLeftovers } from '../../src/freeze/leftovers.ts';
import { tryLock } from '../../src/linux/flock.ts';

/** Runs dattod with the arguments of this process, and ends the process with it. */
export async function dattodWith(
  trackerCandidates: DaemonDependencies['trackerCandidates'],
  others: Partial<DaemonDependencies> = {},
): Promise<never> {
  const dependencies: DaemonDependencies = {
    ...{ prepareJob, listDevices, findDevice, thawLeftovers, removeLeftoverSnapshots, tryLock },
    trackerCandidates,
    ...others,
  };
  process.exit(await runDattod(process.argv.slice(2), () => Promise.resolve(dependencies)));
}
