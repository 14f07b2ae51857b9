/**
 * The files behind a server on this machine: who listens at the address, and what that process and its children
 * hold open for writing. With it a backup is kept from going onto the very device that it reads, also where an
 * NBD server stands between them.
 */
import { readFile, readdir, readlink, stat } from 'node:fs/promises';
import { join } from 'node:path';

export type LocalAddress =
  { readonly kind: 'tcp'; readonly port: number } | { readonly kind: 'unix'; readonly path: string };

export interface ServedFile {
  /** A path that leads to the open file, whatever the server's mount namespace: `/proc/PID/fd/N`. */
  readonly path: string;
  /** As the server named it. */
  readonly name: string;
  readonly pid: number;
}

/**
 * Regular files of at least `minimumSize` bytes, and block devices, that the server at `address` and its children
 * have open for writing. Empty where the server is not found (another machine, another pid namespace).
 */
export async function filesServedAt(
  address: LocalAddress,
  minimumSize: number,
  proc = '/proc',
): Promise<ServedFile[]> {
  const inodes = await listeningInodes(address, proc);
  if (inodes.size === 0) return [];
  const processes = await readProcesses(proc);
  const servers = new Set<number>();
  for (const { pid } of processes) if (await holdsSocket(pid, inodes, proc)) servers.add(pid);
  // nbd-server answers each connection in a child; listing parents before children is not promised, so go round.
  for (let before = -1; before !== servers.size;) {
    before = servers.size;
    for (const { pid, parent } of processes) if (servers.has(parent)) servers.add(pid);
  }
  const files = await Promise.all([...servers].map((pid) => writableFiles(pid, minimumSize, proc)));
  return files.flat();
}

async function listeningInodes(address: LocalAddress, proc: string): Promise<Set<string>> {
  if (address.kind === 'unix') return unixListeners(await readText(join(proc, 'net/unix')), address.path);
  const tables = await Promise.all(['net/tcp', 'net/tcp6'].map((name) => readText(join(proc, name))));
  return new Set(tables.flatMap((text) => [...tcpListeners(text, address.port)]));
}

/** Inodes of the sockets in state LISTEN (0A) at the port, from /proc/net/tcp or tcp6. */
export function tcpListeners(text: string, port: number): Set<string> {
  const found = new Set<string>();
  for (const line of text.split('\n').slice(1)) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    const localPort = Number.parseInt(local?.split(':').at(-1) ?? '', 16);
    if (state === '0A' && localPort === port && inode !== undefined) found.add(inode);
  }
  return found;
}

/** Inodes of the sockets bound to the path, from /proc/net/unix. */
export function unixListeners(text: string, path: string): Set<string> {
  const found = new Set<string>();
  for (const line of text.split('\n').slice(1)) {
    const match = /^\S+ \S+ \S+ \S+ \S+ \S+\s+(\d+) (.*)$/.exec(line.trim());
    if (match?.[2] === path && match[1] !== undefined) found.add(match[1]);
  }
  return found;
}

async function readProcesses(proc: string): Promise<{ pid: number; parent: number }[]> {
  const names = (await readdir(proc)).filter((name) => /^\d+$/.test(name));
  return Promise.all(
    names.map(async (name) => {
      // The command's name, in parentheses, may hold anything; the state and the parent follow the last one.
      const fields = (await readText(join(proc, name, 'stat'))).replace(/^.*\) /s, '').split(' ');
      return { pid: Number(name), parent: Number(fields[1] ?? 0) };
    }),
  );
}

async function holdsSocket(pid: number, inodes: ReadonlySet<string>, proc: string): Promise<boolean> {
  for (const { link } of await openFiles(pid, proc)) {
    const inode = /^socket:\[(\d+)\]$/.exec(link)?.[1];
    if (inode !== undefined && inodes.has(inode)) return true;
  }
  return false;
}

async function writableFiles(pid: number, minimumSize: number, proc: string): Promise<ServedFile[]> {
  const found: ServedFile[] = [];
  for (const { number, link } of await openFiles(pid, proc)) {
    const info = await readText(join(proc, String(pid), 'fdinfo', number));
    const flags = Number.parseInt(/^flags:\s+(\d+)/m.exec(info)?.[1] ?? '0', 8);
    // O_ACCMODE: 0 is read-only.
    if ((flags & 3) === 0) continue;
    const path = join(proc, String(pid), 'fd', number);
    const node = await stat(path).catch(() => undefined);
    const isImage = node?.isFile() === true && node.size >= minimumSize;
    if (isImage || node?.isBlockDevice() === true) found.push({ path, name: link, pid });
  }
  return found;
}

async function openFiles(pid: number, proc: string): Promise<{ number: string; link: string }[]> {
  const directory = join(proc, String(pid), 'fd');
  // Processes come and go while they are looked at.
  const numbers = await readdir(directory).catch(() => []);
  return Promise.all(
    numbers.map(async (number) => ({
      number,
      link: await readlink(join(directory, number)).catch(() => ''),
    })),
  );
}

function readText(path: string): Promise<string> {
  return readFile(path, 'utf8').catch(() => '');
}
