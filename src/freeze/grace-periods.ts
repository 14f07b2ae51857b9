/**
 * Freezing a filesystem waits for some RCU grace periods of the kernel (fs/super.c takes a percpu-rwsem for each level of
 * freezing): tens of milliseconds for which all who write wait. Expedited ones take less than one. So they are asked
 * for from right before a freeze to the thaw, by a setting of the kernel for the whole machine
 * (/sys/kernel/rcu_expedited; kernel-parameters.txt, rcupdate.rcu_expedited), which is put back after it.
 *
 *     RUN_DIR/rcu-expedited    what the setting was before, so that the guard, or the next daemon, puts it back where a
 *                              daemon was killed
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const setting = '/sys/kernel/rcu_expedited';
const noteName = 'rcu-expedited';
let users = 0;

/**
 * Until the returned function is called; touches files in the run directory both times, so not inside a freeze.
 * Without the setting, or without the right to change it, nothing.
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

/** Puts the setting back, also where an earlier daemon was killed; true where there was something to put back. */
export function restoreGracePeriods(runDirectory: string, path = setting): boolean {
  const note = join(runDirectory, noteName);
  try {
    writeFileSync(path, readFileSync(note, 'latin1'));
    rmSync(note, { force: true });
    return true;
  } catch {
    // There is no note, or no right: whoever has it puts it back.
    return false;
  }
}
