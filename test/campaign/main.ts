/**
 * The campaign of random histories, for people and for the night:
 *
 *     scripts/node test/campaign/main.ts [--minutes 20] [--histories N] [--steps N] [--seed N] [--path PATH] [--quiet]
 *
 * Needs root and Debian's packages for the tests. A history that fails is shrunk, and its seed and path repeat it.
 */
import { parseArgs } from 'node:util';
import { runCampaign } from './history.ts';
import { World } from './world.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '20' },
    histories: { type: 'string', default: '1000000' },
    steps: { type: 'string', default: '14' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    path: { type: 'string' },
    quiet: { type: 'boolean', default: false },
  },
});
const hooks: (() => Promise<void>)[] = [];
const t = { after: (hook: () => Promise<void>) => void hooks.push(hook) };
const started = performance.now();
const counts = { histories: 0, steps: 0 };
console.log(`seed ${values.seed}`);
try {
  const world = await World.make(t);
  await runCampaign(world, {
    seed: Number(values.seed),
    histories: Number(values.histories),
    steps: Number(values.steps),
    limitMs: Number(values.minutes) * 60_000,
    ...(values.path === undefined ? {} : { path: values.path }),
    log: (line) => {
      counts.steps++;
      if (!values.quiet) console.log(line);
    },
    onHistory: () => {
      counts.histories++;
    },
  });
} catch (thrown) {
  console.log(thrown instanceof Error ? thrown.message : thrown);
  process.exitCode = 1;
} finally {
  for (const hook of hooks.reverse()) await hook();
}
const minutes = ((performance.now() - started) / 60_000).toFixed(1);
console.log(`${counts.histories} histories, ${counts.steps} steps, ${minutes} minutes`);
