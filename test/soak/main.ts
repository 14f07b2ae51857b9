/**
 * Runs a day of backups, one for each minute, as quickly as possible. Fails if memory, descriptors, threads,
 * files, pins, loop devices or the vault grow:
 *
 *     scripts/node test/soak/main.ts [--minutes 1440] [--seconds 3600] [--every 24] [--hour 60] [--sources]
 *
 * Needs root, Debian's packages for the tests, and build/ (not with --sources).
 */
import { parseArgs } from 'node:util';
import { growthOf } from './growth.ts';
import { tolerances } from './measure.ts';
import { runSoak } from './soak.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1440' },
    seconds: { type: 'string', default: '3600' },
    every: { type: 'string', default: '24' },
    hour: { type: 'string', default: '60' },
    sources: { type: 'boolean', default: false },
  },
});
const hooks: (() => Promise<void>)[] = [];
const t = { after: (hook: () => Promise<void>) => void hooks.push(hook) };
const started = performance.now();
try {
  const { samples, minutes, counts } = await runSoak(t, {
    minutes: Number(values.minutes),
    limitMs: Number(values.seconds) * 1000,
    every: Number(values.every),
    hour: Number(values.hour),
    built: !values.sources,
    log: console.log,
  });
  const seconds = Math.round((performance.now() - started) / 1000);
  console.log(`${minutes} simulated minutes in ${seconds} s: ${JSON.stringify(counts)}`);
  const rows = growthOf(samples, tolerances);
  console.table(rows);
  const grown = rows.filter(({ grew }) => grew).map(({ name }) => name);
  console.log(grown.length === 0 ? 'nothing grew' : `GREW: ${grown.join(', ')}`);
  if (grown.length > 0) process.exitCode = 1;
} catch (thrown) {
  console.log(thrown);
  process.exitCode = 1;
} finally {
  for (const hook of hooks.reverse()) await hook();
}
