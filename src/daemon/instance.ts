/**
 * Ensures that only one instance runs. The pid file is locked (flock) for as long as the daemon lives, so the lock ends
 * with the process, however it ends. A clean shutdown removes the file. If the file was removed while it was locked,
 * its inode shows that.
 */
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { AgentError, errnoCode, systemHints } from '../base/errors.ts';

/** Takes an exclusive lock without waiting. Returns false if another process holds it. */
export type TryLock = (fd: number) => boolean;

export interface Instance {
  /** Removes the pid file and releases the lock. */
  release(): void;
}

/**
 * Locks the pid file and writes the pid to it. Throws DAEMON_ALREADY_RUNNING with the other's pid, FILE_EXISTS if the
 * path holds anything but a pid file, or FILE_ERROR.
 */
export function claimInstance(pidFile: string, tryLock: TryLock, pid = process.pid): Instance {
  for (;;) {
    const fd = openPidFile(pidFile);
    try {
      if (!tryLock(fd)) throw alreadyRunning(pidFile);
      if (isStillThere(fd, pidFile)) {
        checkIsPidFile(fd, pidFile);
        ftruncateSync(fd);
        writePid(fd, pid, pidFile);
        return {
          release: () => {
            if (isStillThere(fd, pidFile)) unlinkSync(pidFile);
            closeSync(fd);
          },
        };
      }
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    closeSync(fd);
  }
}

function openPidFile(path: string): number {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found !== undefined && !found.isFile()) throw noPidFile(path, 'it is not a regular file');
  try {
    // "a+" creates the file if it is missing. If it exists, another daemon's pid stays in it.
    return openSync(path, 'a+', 0o644);
  } catch (error) {
    throw new AgentError(
      'FILE_ERROR',
      `The pid file ${path} cannot be opened: ${errnoCode(error) ?? String(error)}`,
      {
        hint: 'choose another with --pid-file',
        cause: error,
      },
    );
  }
}

/** Writes the pid. If that fails, removes the file again, because it would be empty. */
function writePid(fd: number, pid: number, path: string): void {
  try {
    writeSync(fd, `${pid}\n`, 0);
  } catch (error) {
    unlinkSync(path);
    const code = errnoCode(error) ?? String(error);
    throw new AgentError('FILE_ERROR', `The pid file ${path} cannot be written: ${code}`, {
      hint: systemHints[code] ?? 'choose another with --pid-file',
      cause: error,
    });
  }
}

/** Refuses a file that holds anything but a pid, so that a wrong --pid-file never destroys another file. */
function checkIsPidFile(fd: number, path: string): void {
  const there = Buffer.alloc(32);
  const length = readSync(fd, there, 0, there.length, 0);
  if (!/^\d{0,20}\n?$/.test(there.toString('latin1', 0, length)))
    throw noPidFile(path, 'it holds other text');
}

function noPidFile(path: string, why: string): AgentError {
  return new AgentError('FILE_EXISTS', `${path} is not a pid file: ${why}`, {
    hint: 'choose another path with --pid-file',
  });
}

function isStillThere(fd: number, path: string): boolean {
  const there = statSync(path, { throwIfNoEntry: false });
  return there !== undefined && there.ino === fstatSync(fd).ino;
}

function alreadyRunning(path: string): AgentError {
  const pid = readFileSync(path, 'utf8').trim();
  return new AgentError(
    'DAEMON_ALREADY_RUNNING',
    `dattod is already running${pid === '' ? '' : ` (pid ${pid})`}`,
    {
      hint: `it holds ${path}; stop it first, or give this one paths of its own`,
    },
  );
}
