/**
 * Times a vault against restic and borg on the same device in the same run. Each tool makes three backups: the first,
 * the second after 1 % was written in pieces of 1 MiB, and the third after 1 % was written in blocks of 4 KiB. Then the
 * size of the store is read, and a restore is timed.
 *
 *     scripts/node bench/vault/main.ts [--size 4G] [--fill 0.5] [--runs 3] [--directory DIR]
 *
 * Needs root, ./one_step_build, restic and borgbackup (Debian), and about eight times the size in DIRECTORY (default
 * /dev/shm, so that no disk is measured). Our backup reads the device while it is mounted, as in normal use. The others
 * read it unmounted, because they cannot make a consistent image otherwise. The tools take turns within each round.
 * Copy the table and the description of the machine to docs/benchmarks.md by hand.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { KiB, MiB, formatBytes, parseBytes } from '../../src/base/bytes.ts';
import { type Measured, contenders } from './contenders.ts';
import { makeSource } from './source.ts';
import { table } from './table.ts';

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: '4G' },
    fill: { type: 'string', default: '0.5' },
    runs: { type: 'string', default: '3' },
    directory: { type: 'string', default: '/dev/shm' },
  },
});
const size = parseBytes(values.size, '--size');
const runs = Number(values.runs);
const directory = await mkdtemp(join(values.directory, 'bench-vault-'));
const changes = [
  ['second', MiB],
  ['third', 4 * KiB],
] as const;
const stopping = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => stopping.abort());

try {
  const results = new Map<string, Measured[]>(contenders.map(({ name }) => [name, []]));
  let used = 0;
  for (let run = 0; run < runs; run++) {
    const source = await makeSource(directory, size, Number(values.fill));
    ({ used } = source);
    try {
      const sessions = [];
      for (const contender of contenders)
        sessions.push({
          name: contender.name,
          session: await contender.begin(join(directory, contender.name), source),
        });
      try {
        for (const { name, session } of sessions) {
          stopping.signal.throwIfAborted();
          results.get(name)!.push({ first: await session.backUp() });
        }
        for (const [step, piece] of changes) {
          await source.change(0.01, piece);
          for (const { name, session } of sessions) {
            stopping.signal.throwIfAborted();
            results.get(name)!.at(-1)![step] = await session.backUp();
          }
        }
        for (const { name, session } of sessions) {
          stopping.signal.throwIfAborted();
          const result = results.get(name)!.at(-1)!;
          result.stored = await session.stored();
          result.restore = await session.restore(join(directory, 'restored'));
          await source.compare(join(directory, 'restored'));
          await rm(join(directory, 'restored'));
        }
      } finally {
        for (const { session } of sessions) await session.end();
      }
    } finally {
      await source.remove();
    }
  }
  console.log(
    `${cpus().length} processors: ${cpus()[0]?.model.trim() ?? '?'}; device ${formatBytes(size)}, ` +
      `${formatBytes(used)} used; ${runs} runs\n\n${table(results)}`,
  );
} finally {
  await rm(directory, { recursive: true, force: true });
}
