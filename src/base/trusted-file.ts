/**
 * Files that control a program or hold a secret. A file is refused if another user could have changed it, as in sshd
 * and sudo. A secret is also refused if another user could have read it, as in ssh.
 *
 * - `secret`: The owner is root or the user. Group and others have no permission. Folders on the way are not checked.
 * - `configuration` and `hook`: The owner is root or the user. Group and others may not write. The same rules apply to
 *   the folders on the way.
 *
 * A secret that belongs to root may be readable for its group if the program does not run as root (root:ssl-cert
 * 0640). A folder with the sticky bit, such as /tmp, may be writable for all: only a file's owner can replace it there.
 * A secret may be a pipe or a terminal, so that it can come from another program; these are not checked. Configuration
 * and hooks must be regular files.
 */
import { constants, type Stats } from 'node:fs';
import { type FileHandle, lstat, open, readFile, realpath, stat } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentError, errnoCode } from './errors.ts';

export type TrustedKind = 'secret' | 'configuration' | 'hook';

/** The user of this process. Tests pass another one. */
export interface Who {
  readonly uid: number;
}

const self = (): Who => ({ uid: process.geteuid?.() ?? 0 });

/** Returns the file's bytes. Throws UNSAFE_FILE, or a system error if it cannot be read. */
export async function readTrusted(path: string, kind: TrustedKind, who = self()): Promise<Buffer> {
  // Without O_NONBLOCK, opening a FIFO that no program writes to would not return.
  const handle = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    const found = await handle.stat();
    await check(path, found, kind, who);
    if (found.isFIFO()) return await readPipe(path, handle);
    if (found.isFile()) return await handle.readFile();
  } finally {
    await handle.close();
  }
  // A terminal: this read waits for its input.
  return readFile(path);
}

/** Milliseconds to wait until a program writes to the pipe. */
const pipeMs = 10_000;
const pollMs = 20;

/** Returns all data until no program has the pipe open for writing. Throws FILE_ERROR if no program opens it. */
async function readPipe(path: string, pipe: FileHandle): Promise<Buffer> {
  const parts: Buffer[] = [];
  const deadline = performance.now() + pipeMs;
  for (;;) {
    const part = await pipe.read(Buffer.alloc(65_536)).catch((error: unknown) => {
      // A program has the pipe open, but has not written yet.
      if (errnoCode(error) === 'EAGAIN') return undefined;
      throw error;
    });
    if (part?.bytesRead === 0) {
      if (parts.length > 0) return Buffer.concat(parts);
      if (performance.now() > deadline)
        throw new AgentError(
          'FILE_ERROR',
          `${path} is a pipe, and no program wrote to it for ${pipeMs / 1000} s`,
          {
            hint: 'Start the program that writes to the pipe, or give a file',
          },
        );
    }
    if (part === undefined || part.bytesRead === 0) await sleep(pollMs);
    else parts.push(part.buffer.subarray(0, part.bytesRead));
  }
}

/** Checks a file that another program opens, without reading it. Throws UNSAFE_FILE, or a system error. */
export async function checkTrusted(path: string, kind: TrustedKind, who = self()): Promise<void> {
  await check(path, await stat(path), kind, who);
}

async function check(path: string, file: Stats, kind: TrustedKind, who: Who): Promise<void> {
  if (!file.isFile()) {
    if (kind === 'secret') return;
    throw new AgentError(
      'UNSAFE_FILE',
      `${path} is not a regular file, so anything could come from it as ${kind}`,
      {
        hint: 'Give the path of a file',
      },
    );
  }
  checkOwner(path, file, who);
  if (kind === 'secret') {
    const groupMayRead = file.uid === 0 && who.uid !== 0;
    const forbidden = groupMayRead ? 0o037 : 0o077;
    if ((file.mode & forbidden) === 0) return;
    throw unsafe(
      path,
      file,
      'other users may read or change this secret',
      groupMayRead ? 'chmod 640' : 'chmod 600',
      ' (a filesystem without modes, such as FAT: mount it with umask=077)',
    );
  }
  if ((file.mode & 0o022) !== 0)
    throw unsafe(path, file, `other users may change this ${kind}`, 'chmod go-w');
  for (const folder of await foldersOf(path)) {
    const there = await lstat(folder);
    checkOwner(folder, there, who);
    // The mode of a link has no meaning. Its owner and its folder decide.
    if (there.isSymbolicLink() || (there.mode & 0o022) === 0 || (there.mode & sticky) !== 0) continue;
    throw unsafe(folder, there, `other users may replace ${path}`, 'chmod go-w');
  }
}

const sticky = 0o1000;

/** Returns the folders and links on the way to the file, for the path as it was given and for its real path. */
async function foldersOf(path: string): Promise<Set<string>> {
  const found = new Set<string>();
  for (const name of [resolve(path), await realpath(path)])
    for (let at = dirname(name); !found.has(at); at = dirname(at)) found.add(at);
  if ((await lstat(path)).isSymbolicLink()) found.add(resolve(path));
  return found;
}

function checkOwner(path: string, file: Stats, who: Who): void {
  if (file.uid === 0 || file.uid === who.uid) return;
  const owner = who.uid === 0 ? 'root' : `root or user ${who.uid}`;
  throw new AgentError('UNSAFE_FILE', `${path} belongs to user ${file.uid}, not to ${owner}`, {
    hint: `Run: chown ${who.uid === 0 ? 'root' : who.uid} '${path}'`,
  });
}

function unsafe(path: string, file: Stats, why: string, command: string, more = ''): AgentError {
  const mode = (file.mode & 0o7777).toString(8).padStart(4, '0');
  return new AgentError('UNSAFE_FILE', `${path} has mode ${mode}: ${why}`, {
    hint: `Run: ${command} '${path}'${more}`,
  });
}
