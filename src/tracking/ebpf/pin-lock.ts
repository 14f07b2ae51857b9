/**
 * Lets one process at a time use a directory of pins. Two processes would take from the same maps, each for chains that
 * the other does not know. The lock is flock(2) on the directory itself. So it is the same lock in each mount namespace
 * and under each name of the directory, and it ends with the process, even after a crash.
 */
import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { tryLock } from '../../linux/flock.ts';

export class PinLock {
  readonly #directory: string;
  #fd: number | undefined;

  constructor(directory: string) {
    this.#directory = directory;
  }

  /**
   * Takes the lock, or keeps it. Returns false if there is no such directory. Throws DEVICE_BUSY if another process has
   * it.
   */
  acquire(): boolean {
    // A directory that was removed in the meantime, and perhaps created again, is another directory.
    while (!this.#isHeld()) {
      this.release();
      try {
        this.#fd = openSync(this.#directory, 'r');
      } catch (thrown) {
        if (errnoCode(thrown) === 'ENOENT') return false;
        throw thrown;
      }
      if (tryLock(this.#fd)) continue;
      this.release();
      throw new AgentError(
        'DEVICE_BUSY',
        `another process tracks devices with the pins in ${this.#directory}`,
        {
          hint: 'stop the other dattod, or give each its own --pin-dir',
        },
      );
    }
    return true;
  }

  release(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #isHeld(): boolean {
    if (this.#fd === undefined) return false;
    const held = fstatSync(this.#fd, { bigint: true });
    const there = statSync(this.#directory, { bigint: true, throwIfNoEntry: false });
    return there?.ino === held.ino && there.dev === held.dev;
  }
}
