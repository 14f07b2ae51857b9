/**
 * The initramfs of the test machine: busybox, the modules that reach the host's files over 9p, and guest-init.sh.
 * It holds nothing else, since the guest sees the host's root (read-only, under an overlay), with every tool.
 * The archive is "newc" (Documentation/driver-api/early-userspace/buffer-format.rst).
 */
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { exec } from '../helpers/exec.ts';
import type { Kernel } from './kernels.ts';

const busybox = '/usr/bin/busybox';
/** The modules for mounting the root. The guest's own modprobe loads everything else. */
const modules = ['virtio_pci', '9pnet_virtio', '9p', 'overlay'];

interface Entry {
  readonly path: string;
  readonly mode: number;
  readonly data: Uint8Array;
}

const file = 0o100755;
const directory = 0o040755;
const nothing = new Uint8Array();

export async function buildInitramfs(kernel: Kernel): Promise<Buffer> {
  const entries: Entry[] = ['bin', 'proc', 'sys', 'dev', 'modules', 'lower', 'overlay', 'root'].map(
    (path) => ({ path, mode: directory, data: nothing }),
  );
  entries.push({ path: 'bin/busybox', mode: file, data: readFileSync(busybox) });
  entries.push({ path: 'init', mode: file, data: readFileSync(join(import.meta.dirname, 'guest-init.sh')) });
  const order: string[] = [];
  for (const path of loadOrder(kernel)) {
    const name = basename(path).replace(/\.xz$/, '');
    const data = await uncompressed(join(kernel.root, 'lib/modules', kernel.release, path));
    entries.push({ path: `modules/${name}`, mode: file, data });
    order.push(name);
  }
  entries.push({ path: 'modules/order', mode: file, data: Buffer.from(`${order.join('\n')}\n`) });
  return archive(entries);
}

/**
 * Returns the paths of the modules and their dependencies, dependencies first (modules.dep lists those of
 * each module, nearest first).
 */
function loadOrder(kernel: Kernel): string[] {
  const text = readFileSync(join(kernel.root, 'lib/modules', kernel.release, 'modules.dep'), 'utf8');
  const needs = new Map<string, string[]>();
  for (const line of text.split('\n')) {
    const [path, rest] = line.split(':');
    if (path === undefined || rest === undefined) continue;
    const name = basename(path)
      .replace(/\.ko(\.xz)?$/, '')
      .replaceAll('-', '_');
    needs.set(name, [
      ...rest
        .split(' ')
        .filter((each) => each !== '')
        .reverse(),
      path,
    ]);
  }
  const order = new Set<string>();
  // A missing module is built into the kernel.
  for (const name of modules) for (const path of needs.get(name) ?? []) order.add(path);
  return [...order];
}

async function uncompressed(path: string): Promise<Uint8Array> {
  if (!path.endsWith('.xz')) return readFileSync(path);
  const copy = await exec('sh', ['-c', 'xz -dc "$1" | base64 -w0', 'sh', path]);
  return Buffer.from(copy.stdout, 'base64');
}

function archive(entries: readonly Entry[]): Buffer {
  const parts: Uint8Array[] = [];
  [...entries, { path: 'TRAILER!!!', mode: 0, data: nothing }].forEach((entry, number) => {
    const name = Buffer.from(`${entry.path}\0`);
    const links = entry.mode === directory ? 2 : 1;
    const fields = [number + 1, entry.mode, 0, 0, links, 0, entry.data.length, 0, 0, 0, 0, name.length, 0];
    const header = `070701${fields.map((each) => each.toString(16).padStart(8, '0')).join('')}`;
    const head = Buffer.concat([Buffer.from(header), name]);
    parts.push(head, padding(head.length), entry.data, padding(entry.data.length));
  });
  return Buffer.concat(parts);
}

function padding(length: number): Uint8Array {
  return new Uint8Array((4 - (length % 4)) % 4);
}
