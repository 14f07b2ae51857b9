/**
 * A process that puts objects into a directory store, to be killed or traced. Its first argument is the path
 * of the store. With `once KEY` it puts one object and prints `done`. With `forever` it puts `k/N` of some
 * MiB and `same` again and again, and prints `N` when both are stored.
 */
import { createHash } from 'node:crypto';
import { MiB } from '../../src/base/bytes.ts';
import { openDirectoryStore } from '../../src/vault/store/directory.ts';

/** Returns the content of object number `n`, which begins with its own SHA-256. */
export function numbered(n: number): Buffer {
  const data = Buffer.alloc(2 * MiB + ((n * 7919) % MiB), n % 251);
  data.writeUInt32LE(n, 32);
  createHash('sha256').update(data.subarray(32)).digest().copy(data);
  return data;
}

/** Returns the number of a whole object. Throws if the object is not whole. */
export function numberOf(data: Buffer): number {
  const sum = createHash('sha256').update(data.subarray(32)).digest();
  if (!sum.equals(data.subarray(0, 32))) throw new Error(`an object of ${data.length} bytes is not whole`);
  return data.readUInt32LE(32);
}

if (import.meta.main) {
  const [root = '', mode, key = ''] = process.argv.slice(2);
  const store = await openDirectoryStore(root, { create: true });
  if (mode === 'once') {
    await store.put(key, numbered(1));
    process.stdout.write('done\n');
  } else
    for (let n = 0; ; n++) {
      const data = numbered(n);
      await Promise.all([store.put(`k/${n % 20}`, data), store.put('same', data)]);
      process.stdout.write(`${n}\n`);
    }
}
