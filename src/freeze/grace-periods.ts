/**
 * Makes freezes faster. To freeze a filesystem, the kernel waits for some RCU grace periods (fs/super.c takes a
 * percpu-rwsem for each level of freezing). That takes tens of milliseconds, during which all writers wait. Expedited
 * grace periods take less than one millisecond. A setting of the kernel for the whole machine requests them
 * (/sys/kernel/rcu_expedited; kernel-parameters.txt, rcupdate.rcu_expedited). It is set right before a freeze and
 * restored after the thaw.
 *
 *     RUN_DIR/rcu-expedited    the setting before the freeze: if a daemon is killed, the guard or the next daemon
 *                              restores it
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const setting = '/sys/kernel/rcu_expedited';
const noteName = 'rcu-expedited';
let users = 0;

/**
 * Expedites grace periods until the returned function is called. Both calls change files in the run directory, so
 * neither may happen during a freeze. Does nothing if the setting does not exist or may not be changed.
 */
export function expediteGracePeriods(runDirectory: string, path = setting): () => void {
  const note = join(runDirectory, noteName);
  if (users === 0)
    try {
      if (readFileSync(path, 'latin1').trim() !== '0') return () => undefined;
      writeFileSync(note, '0', { mode: 0o600 });
      writeFileSync(path, '1');
    } catch {
      rmSync(note, { force: true });
      return () => undefined;
    }
  users++;
  let done = false;
  return () => {
    if (done) return;
    done = true;
    if (--users === 0) restoreGracePeriods(runDirectory, path);
  };
}

/** Restores the setting, also after an earlier daemon was killed. Returns true if it had been changed. */
export function restoreGracePeriods(runDirectory: string, path = setting): boolean {
  const note = join(runDirectory, noteName);
  try {
    writeFileSync(path, readFileSync(note, 'latin1'));
    rmSync(note, { force: true });
    return true;
  } catch {
    // There is no note, or no permission. A process with the permission restores the setting.
    return false;
  }
}
