/**
 * Random bytes for ids, keys and nonces, also in a virtual machine that was put back to a memory snapshot. A generator
 * in this process (OpenSSL's, behind node:crypto) has its state in the snapshot, so it repeats itself. Each call reads
 * the kernel's generator anew: since Linux 5.18 the hypervisor tells the kernel of the snapshot (VMGENID), and the
 * kernel seeds it again (random(4)). For older kernels and other hypervisors the boot, both clocks, the process and what
 * the caller is about to write are mixed in, by HMAC-SHA-512: the result is never worse than the kernel's bytes.
 */
import { createHmac } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { threadId } from 'node:worker_threads';

/** Where the bytes come from; tests put others in their place, to repeat a course of events or to repeat numbers. */
export const randomness = {
  /** `size` bytes of the kernel's generator. */
  kernel: (size: number): Buffer => {
    const bytes = Buffer.alloc(size);
    const fd = openSync('/dev/urandom', 'r');
    try {
      for (let done = 0; done < size;) done += readSync(fd, bytes, done, size - done, null);
    } finally {
      closeSync(fd);
    }
    return bytes;
  },
  /** What differs from one moment and process to another. */
  moment: (): string =>
    `${bootId()} ${Date.now()} ${process.hrtime.bigint()} ${process.pid} ${threadId} ${calls++}`,
};

const seedLength = 64;
let calls = 0;
let boot: string | undefined;

/** `content`: what the bytes are for, such as the plaintext under a nonce; other content, other bytes. */
export function freshBytes(size: number, ...content: readonly Uint8Array[]): Buffer {
  const seed = randomness.kernel(seedLength);
  const moment = randomness.moment();
  const parts: Buffer[] = [];
  for (let length = 0; length < size; length += 64) {
    const mac = createHmac('sha512', seed).update(`${parts.length} ${moment} `);
    for (const each of content) mac.update(`${each.length} `).update(each);
    parts.push(mac.digest());
  }
  return Buffer.concat(parts, Math.max(size, 0));
}

/** A random UUID (version 4) of such bytes. */
export function freshUuid(): string {
  const bytes = freshBytes(16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

function bootId(): string {
  return (boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
}
