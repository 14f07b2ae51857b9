/**
 * The files behind a server on this machine: finds the processes that listen at the address, and the files that they
 * and their children hold open for writing. This keeps a backup from being written to the device that it reads, even
 * if an NBD server stands between them.
 */
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { boundedCall } from '../base/bounded-call.ts';

export type LocalAddress =
  { readonly kind: 'tcp'; readonly port: number } | { readonly kind: 'unix'; readonly path: string };

export interface ServedFile {
  /** A path that leads to the open file, whatever mount namespace the server has: `/proc/PID/fd/N`. */
  readonly path: string;
  /** As the server named it. */
  readonly name: string;
  readonly pid: number;
}

/**
 * Returns the block devices, and the regular files of at least `minimumSize` bytes, that the server at `address` and
 * its children have open for writing. Empty if the server is not found (another machine, another pid namespace).
 */
export async function filesServedAt(
  address: LocalAddress,
  minimumSize: number,
  proc = '/proc',
): Promise<ServedFile[]> {
  const listeners = await listenersAt(address, proc);
  if (listeners.size === 0) return [];
  const processes = readProcesses(proc);
  const servers = new Set<number>();
  for (const { pid } of processes) if (await isServer(pid, address, listeners, proc)) servers.add(pid);
  // nbd-server answers each connection in a child. A child may be listed before its parent, so the loop repeats.
  for (let before = -1; before !== servers.size;) {
    before = servers.size;
    for (const { pid, parent } of processes) if (servers.has(parent)) servers.add(pid);
  }
  const files = await Promise.all([...servers].map((pid) => writableFiles(pid, minimumSize, proc)));
  return files.flat();
}

/** Returns sockets that may be the one at the address. Keys: the link in /proc/PID/fd. Values: the path bound to. */
async function listenersAt(address: LocalAddress, proc: string): Promise<Map<string, string>> {
  const found =
    address.kind === 'unix'
      ? unixListeners(await readText(join(proc, 'net/unix')))
      : (await Promise.all(['net/tcp', 'net/tcp6'].map((name) => readText(join(proc, name))))).flatMap(
          (text) => [...tcpListeners(text, address.port)].map((inode) => ({ inode, path: '' })),
        );
  return new Map(found.map(({ inode, path }) => [`socket:[${inode}]`, path]));
}

async function isServer(
  pid: number,
  address: LocalAddress,
  listeners: ReadonlyMap<string, string>,
  proc: string,
): Promise<boolean> {
  for (const { path } of openFiles(pid, proc)) {
    const bound = listeners.get(linkOf(path));
    if (bound === undefined) continue;
    if (address.kind === 'tcp' || (await isSameSocket(pid, address.path, bound, proc))) return true;
  }
  return false;
}

/**
 * True if both paths lead to the same socket. A path can lead to it by a link, from another directory, or in another
 * mount namespace. So the files are compared, and the server's path is resolved as the server sees it.
 */
async function isSameSocket(pid: number, path: string, bound: string, proc: string): Promise<boolean> {
  if (path === bound) return true;
  // Not `join`: the kernel must resolve `..`, behind the link.
  const seen = `${proc}/${pid}/${bound.startsWith('/') ? 'root' : 'cwd'}/${bound}`;
  const [wanted, found] = await Promise.all([path, seen].map((each) => stat(each).catch(() => undefined)));
  return wanted !== undefined && wanted.ino === found?.ino && wanted.dev === found.dev;
}

/** Returns the inodes of the sockets in state LISTEN (0A) at the port, from /proc/net/tcp or tcp6. */
export function tcpListeners(text: string, port: number): Set<string> {
  const found = new Set<string>();
  for (const line of text.split('\n').slice(1)) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    const localPort = Number.parseInt(local?.split(':').at(-1) ?? '', 16);
    if (state === '0A' && localPort === port && inode !== undefined) found.add(inode);
  }
  return found;
}

/** Returns the inodes of the sockets that listen at a path, and the paths as they were bound, from /proc/net/unix. */
export function unixListeners(text: string): { readonly inode: string; readonly path: string }[] {
  const found = [];
  for (const line of text.split('\n').slice(1)) {
    // The fourth field has __SO_ACCEPTCON (10000) for sockets that listen.
    const match = /^\S+ \S+ \S+ (\S+) \S+ \S+\s+(\d+) (.*)$/.exec(line.trimStart());
    const [, flags = '0', inode = '', path = ''] = match ?? [];
    if (path !== '' && (Number.parseInt(flags, 16) & 0x10000) !== 0) found.push({ inode, path });
  }
  return found;
}

// The functions below read /proc synchronously. Thousands of tiny reads that never wait for a disk cost a few milliseconds
// this way, and ten times as much through promises and the thread pool.

function readProcesses(proc: string): { pid: number; parent: number }[] {
  return readdirSync(proc)
    .filter((name) => /^\d+$/.test(name))
    .map((name) => {
      // The command's name, in parentheses, may hold any character. State and parent follow the last parenthesis.
      const fields = readNow(join(proc, name, 'stat'))
        .replace(/^.*\) /s, '')
        .split(' ');
      return { pid: Number(name), parent: Number(fields[1] ?? 0) };
    });
}

async function writableFiles(pid: number, minimumSize: number, proc: string): Promise<ServedFile[]> {
  const found: ServedFile[] = [];
  for (const { number, path } of openFiles(pid, proc)) {
    const info = readNow(join(proc, String(pid), 'fdinfo', number));
    const flags = Number.parseInt(/^flags:\s+(\d+)/m.exec(info)?.[1] ?? '0', 8);
    // The access mode (O_ACCMODE) 0 is read-only.
    if ((flags & 3) === 0) continue;
    const node = await boundedCall('stat', path, () => stat(path)).catch(() => undefined);
    const isImage = node?.isFile() === true && node.size >= minimumSize;
    if (isImage || node?.isBlockDevice() === true) found.push({ path, name: linkOf(path), pid });
  }
  return found;
}

// Processes come and go while /proc is read. A process that is gone has no open files.

function openFiles(pid: number, proc: string): { number: string; path: string }[] {
  const directory = join(proc, String(pid), 'fd');
  try {
    return readdirSync(directory).map((number) => ({ number, path: `${directory}/${number}` }));
  } catch {
    return [];
  }
}

function linkOf(path: string): string {
  try {
    return readlinkSync(path);
  } catch {
    return '';
  }
}

function readNow(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return '';
  }
}

function readText(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}
