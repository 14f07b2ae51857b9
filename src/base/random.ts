/**
 * Random bytes for IDs, keys and nonces, also in a virtual machine that was reverted to a memory snapshot. A generator
 * in this process (OpenSSL's, behind node:crypto) has its state in the snapshot, so it would repeat itself. Each call
 * reads the kernel's generator instead. Since Linux 5.18 the hypervisor reports the revert to the kernel (VMGENID), and
 * the kernel seeds its generator again (random(4)). For older kernels and other hypervisors, the boot ID, both clocks,
 * the process and the content that the caller is about to write are mixed in by HMAC-SHA-512. The result is never worse
 * than the kernel's bytes.
 */
import { createHmac } from 'node:crypto';
import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { threadId } from 'node:worker_threads';

/** The sources of the bytes. Tests replace them, to repeat a sequence of events or to repeat numbers. */
export const randomness = {
  /** Returns `size` bytes of the kernel's generator. */
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
  /** Returns a text that differs between moments and between processes. */
  moment: (): string =>
    `${bootId()} ${Date.now()} ${process.hrtime.bigint()} ${process.pid} ${threadId} ${calls++}`,
};

const seedLength = 64;
let calls = 0;
let boot: string | undefined;

/** Returns random bytes. `content`: the data they are for, such as a nonce's plaintext. It changes the result. */
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

/** Returns a random UUID (version 4), made from `freshBytes`. */
export function freshUuid(): string {
  const bytes = freshBytes(16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
}

function bootId(): string {
  return (boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim());
}
