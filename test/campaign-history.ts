/**
 * Runs histories of backups by the seeds from SEED on, for manual use: ext4 if the seed is odd, XFS if it is
 * even. Needs root, and Debian's packages for the tests. The report of a failed history names its seed, and
 * the campaign continues.
 */
import { parseArgs } from 'node:util';
import { runHistory } from './helpers/history.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    jobs: { type: 'string', default: '20' },
    histories: { type: 'string', default: '10' },
  },
});
const first = Number(values.seed);
let failures = 0;

for (let seed = first; seed < first + Number(values.histories); seed++) {
  const hooks: (() => Promise<void>)[] = [];
  const t = {
    after: (hook: () => Promise<void>) => void hooks.push(hook),
    diagnostic: (message: string) => console.log(`seed ${seed}: ${message}`),
  };
  const started = performance.now();
  try {
    await runHistory(t, { type: seed % 2 === 1 ? 'ext4' : 'xfs', seed, incrementals: Number(values.jobs) });
    console.log(`seed ${seed}: all right, ${Math.round((performance.now() - started) / 1000)} s`);
  } catch (thrown) {
    failures++;
    console.log(`seed ${seed}: FAILED`, thrown);
  } finally {
    for (const hook of hooks.reverse()) await hook();
  }
}
console.log(`${Number(values.histories)} histories, ${failures} failed`);
process.exitCode = failures > 0 ? 1 : 0;
