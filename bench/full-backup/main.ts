/**
 * Times full backups against nbdcopy, qemu-img, dd and partclone into the same server in the same run.
 *
 *     scripts/node bench/full-backup/main.ts [--size 4G] [--runs 5] [--directory DIR]
 *
 * Needs root, ./one_step_build, and about three times the size in DIRECTORY (default /dev/shm, so that no disk is
 * measured). The tools take turns within each round, so that other load on the machine affects all of them alike. Copy
 * the tables and the description of the machine to docs/benchmarks.md by hand.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { GiB, formatBytes, parseBytes } from '../../src/base/bytes.ts';
import { exec } from '../../test/helpers/exec.ts';
import { table } from './report.ts';
import { serverKinds, startServer } from './servers.ts';
import { makeSource } from './source.ts';
import { type Measurement, tools } from './tools.ts';

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '4G' },
    runs: { type: 'string', default: '5' },
    directory: { type: 'string', default: '/dev/shm' },
  },
});
const size = parseBytes(values.size, '--size');
const runs = Number(values.runs);
const directory = await mkdtemp(join(values.directory, 'bench-'));
// After a signal the present tool finishes; then the run ends and removes all it made.
const stopping = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => stopping.abort());

try {
  console.log(
    `${cpus().length} processors: ${cpus()[0]?.model.trim() ?? '?'}; device ${formatBytes(size)}; ${runs} runs\n`,
  );
  for (const [title, fill] of [
    ['Half full', 0.5],
    ['Completely full', 1],
  ] as const) {
    const source = await makeSource(directory, size, fill);
    try {
      for (const kind of serverKinds) {
        console.log(`### ${title} (${formatBytes(source.used)} used) into ${kind}\n`);
        const results = new Map<string, Measurement[]>(tools.map(({ name }) => [name, []]));
        for (let run = 0; run < runs; run++)
          for (const tool of tools) {
            stopping.signal.throwIfAborted();
            results.get(tool.name)!.push(await once(tool, source.device, kind));
          }
        console.log(`${table(results, size / GiB)}\n`);
      }
    } finally {
      await source.remove();
    }
  }
} finally {
  await rm(directory, { recursive: true, force: true });
}

async function once(
  tool: (typeof tools)[number],
  device: string,
  kind: (typeof serverKinds)[number],
): Promise<Measurement> {
  const server = await startServer(kind, directory, size);
  try {
    // The peers read through the page cache. Flushing it keeps one tool from using data that an earlier tool has
    // cached.
    await exec('blockdev', ['--flushbufs', device]);
    return await tool.run(device, server.uri);
  } finally {
    await server.stop();
  }
}
