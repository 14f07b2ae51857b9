/**
 * Helpers of the tests inside the virtual machine: shell commands, reads of whole devices, devices in the
 * form that the tracker takes.
 */
import { execFileSync } from 'node:child_process';
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readdirSync,
  readSync,
  realpathSync,
  statSync,
} from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { alignedBuffer } from '../../src/linux/aligned.ts';
import { blockDeviceSize } from '../../src/linux/ioctl.ts';
import { readLiveDevice } from '../../src/tracking/device-identity.ts';
import type { TrackedDevice } from '../../src/tracking/tracker.ts';

/** Runs a shell script. Returns its output. If it fails, the error message has its standard error. */
export function sh(script: string, environment: Readonly<Record<string, string>> = {}): string {
  return execFileSync('/bin/bash', ['-c', `set -e\n${script}`], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...environment },
  });
}

export function describeDevice(path: string, uuid = ''): TrackedDevice {
  const { rdev } = statSync(realpathSync(path));
  // Like makedev of the C library.
  const major = (rdev >>> 8) & 0xfff;
  const minor = (rdev & 0xff) | ((rdev >>> 12) & 0xfff00);
  const live = readLiveDevice(major, minor);
  return {
    path,
    major,
    minor,
    size: live.size,
    partition: live.partition ? { ...live.disk, start: live.start } : undefined,
    diskSequence: live.diskSequence,
    uuid,
  };
}

const chunk = alignedBuffer(4 * 1024 * 1024);

function eachChunk(path: string, visit: (data: Buffer, offset: number) => void): void {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECT);
  try {
    const size = blockDeviceSize(fd);
    for (let offset = 0; offset < size;) {
      const got = readSync(fd, chunk, 0, Math.min(chunk.length, size - offset), offset);
      if (got <= 0) throw new Error(`${path}: read ${got} bytes at ${offset} of ${size}`);
      visit(chunk.subarray(0, got), offset);
      offset += got;
    }
  } finally {
    closeSync(fd);
  }
}

/** Returns all bytes of a device, past its page cache. */
export function snapshot(path: string): Buffer {
  const parts: Buffer[] = [];
  eachChunk(path, (data) => parts.push(Buffer.from(data)));
  return Buffer.concat(parts);
}

/** Returns the offsets of the 4 KiB blocks that have changed. */
export function changedBlocks(before: Buffer, path: string): number[] {
  const changed: number[] = [];
  eachChunk(path, (data, offset) => {
    if (data.equals(before.subarray(offset, offset + data.length))) return;
    for (let at = 0; at < data.length; at += 4096)
      if (!data.subarray(at, at + 4096).equals(before.subarray(offset + at, offset + at + 4096)))
        changed.push(offset + at);
  });
  return changed;
}

/**
 * Returns the NVMe disk with one path, or the head of the one with two. Their numbers depend on which
 * controller was found first. The head has no requests of its own.
 */
export async function nvmeDisk(paths: 'one path' | 'two paths'): Promise<string> {
  for (const deadline = Date.now() + 20_000; ;) {
    const disks = readdirSync('/sys/block').filter((name) => /^nvme\d+n\d+$/.test(name));
    const found = disks.find((name) => existsSync(`/sys/block/${name}/mq`) === (paths === 'one path'));
    if (found !== undefined && existsSync(`/dev/${found}`)) return `/dev/${found}`;
    if (Date.now() > deadline) throw new Error(`no NVMe disk with ${paths} among ${disks.join(', ')}`);
    await sleep(100);
  }
}
