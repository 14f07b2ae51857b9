/** The entry of the daemon dattod (docs/dattod.md). Connects the daemon with the other folders. */
import { runDattod } from '../daemon/run.ts';

const exitCode = await runDattod(process.argv.slice(2), async () => {
  const [
    { prepareJob },
    { listDevices },
    { findDevice },
    { thawLeftovers },
    { tryLock },
    { trackerCandidates },
    { removeLeftoverSnapshots },
  ] = await Promise.all([
    import('../backup/prepare/prepare-job.ts'),
    import('../devices/inventory.ts'),
    import('../devices/find.ts'),
    import('../freeze/leftovers.ts'),
    import('../linux/flock.ts'),
    import('../tracking/candidates.ts'),
    import('../devices/lvm/snapshot.ts'),
  ]);
  return {
    prepareJob,
    listDevices,
    findDevice,
    thawLeftovers,
    removeLeftoverSnapshots,
    tryLock,
    trackerCandidates,
  };
});
// The process must end even if a job's worker did not stop in time, or if a thread waits for a hung filesystem.
const { exitNow } = await import('../linux/exit.ts');
exitNow(exitCode);
