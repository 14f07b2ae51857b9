/** Removes the traces that ended daemons left in the kernel, by their records (leftover.ts). */
import { readdir, readlink, rm } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { tearDownTrace } from '../../linux/blktrace.ts';
import { openDebugfs } from '../../linux/debugfs.ts';
import { TraceRecords } from './leftover.ts';
import { traceFolder } from './relay-files.ts';

/**
 * Returns the paths of the devices whose traces were removed. Traces of other programs, and of running daemons, stay.
 */
export async function removeLeftTraces(runDirectory: string): Promise<string[]> {
  const directory = join(runDirectory, 'blktrace');
  const names = (await readdir(directory).catch(() => [])).filter((name) => /^\d+-\d+\.json$/.test(name));
  if (names.length === 0) return [];
  const records = new TraceRecords(runDirectory);
  const removed: string[] = [];
  const debugfs = await openDebugfs(runDirectory);
  try {
    for (const name of names) {
      const disk = name.replace('.json', '').replace('-', ':');
      const kernelName = basename(await readlink(`/sys/dev/block/${disk}`).catch(() => ''));
      const folder =
        kernelName === ''
          ? undefined
          : traceFolder(debugfs.path, kernelName.replaceAll('!', '_'), kernelName);
      const earlier = await records.earlier(disk, folder);
      const path = `/dev/${kernelName.replaceAll('!', '/')}`;
      if (earlier === 'ours') {
        await tearDownTrace(path);
        removed.push(path);
      }
      if (earlier !== undefined) await rm(join(directory, name), { force: true });
    }
  } finally {
    debugfs.close();
  }
  return removed;
}
