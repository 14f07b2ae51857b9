/** Calls syncfs(2), and finds the type of a filesystem. */
import { statfs } from 'node:fs/promises';
import { checkedAsync, declare } from './libc.ts';

const call = declare<[fd: number]>('syncfs', 'int', ['int']);

/** Writes all dirty data of the filesystem of the open file or directory, on a thread of the pool. */
export async function syncFilesystem(fd: number): Promise<void> {
  await checkedAsync(call, [fd], 'syncfs');
}

/** Filesystems that are only in memory: magic numbers of include/uapi/linux/magic.h. */
const inMemory: ReadonlySet<number> = new Set([0x01021994, 0x858458f6]);

/** True if the path is on tmpfs or ramfs. */
export async function isInMemory(path: string): Promise<boolean> {
  return inMemory.has((await statfs(path)).type);
}
