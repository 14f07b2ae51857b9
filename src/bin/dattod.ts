/** dattod, the daemon (docs/dattod.md): brings the rooms together. */
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
    import('../backup/prepare.ts'),
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
// Nothing that is left may keep the process: a worker of a job that did not end in time, a thread that waits for a
// filesystem that hangs.
const { exitNow } = await import('../linux/exit.ts');
exitNow(exitCode);
