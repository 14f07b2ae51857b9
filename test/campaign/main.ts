/**
 * The campaign of random histories, for manual and nightly runs:
 *
 *     scripts/node test/campaign/main.ts [--minutes 20] [--histories N] [--steps N] [--seed N] [--path PATH] [--quiet]
 *                                        [--continue] [--shrink-seconds 120] [--favour REGEXP]
 *
 * Needs root and Debian's packages for the tests. A history that fails is shrunk, and its seed and path
 * repeat it. The machine is made again after 25 histories, with the next seed. `--continue`: plays other
 * histories after a failure. `--favour`: half of the steps have names that match.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { atEnd } from '../helpers/cleanup.ts';
import { type Failure, runCampaign } from './history.ts';
import { World } from './world.ts';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '20' },
    histories: { type: 'string', default: '1000000' },
    steps: { type: 'string', default: '10' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    path: { type: 'string' },
    favour: { type: 'string' },
    quiet: { type: 'boolean', default: false },
    continue: { type: 'boolean', default: false },
    'shrink-seconds': { type: 'string', default: '120' },
  },
});

/** A machine collects data of its histories in its state, such as chains of targets that no longer exist. */
const historiesOfMachine = 25;

const started = performance.now();
const deadline = started + Number(values.minutes) * 60_000;
const counts = new Map<string, number>();
let histories = 0;
let failures = 0;

for (let seed = Number(values.seed); ; seed++) {
  const left = Number(values.histories) - histories;
  const limitMs = deadline - performance.now();
  if (left <= 0 || limitMs <= 0) break;
  const failure = await playOn(seed, Math.min(left, historiesOfMachine), limitMs);
  if (failure !== undefined) {
    failures++;
    console.log(
      `FAILED seed ${failure.seed} path ${failure.path}, after ${failure.after} histories, shrunk ${failure.shrinks} times: ${failure.history}`,
    );
    console.log(failure.error);
  }
  if ((failure !== undefined && !values.continue) || values.path !== undefined) break;
}
const seconds = (performance.now() - started) / 1000;
const steps = [...counts.values()].reduce((sum, count) => sum + count, 0);
for (const [kind, count] of [...counts].sort(([, a], [, b]) => b - a)) console.log(`${count}\t${kind}`);
console.log(
  `${histories} histories, ${steps} steps, ${failures} failures, ${(seconds / 60).toFixed(1)} minutes, ` +
    `${(seconds / Math.max(1, histories)).toFixed(2)} s a history`,
);
process.exitCode = failures > 0 ? 1 : 0;

async function playOn(seed: number, most: number, limitMs: number): Promise<Failure | undefined> {
  const hooks: (() => Promise<void>)[] = [];
  const t = { after: (hook: () => Promise<void>) => void hooks.push(hook) };
  console.log(`seed ${seed}`);
  const scratch = mkdtempSync('/dev/shm/campaign-');
  atEnd(t, () => rmSync(scratch, { recursive: true, force: true }));
  process.env['TMPDIR'] = scratch;
  try {
    const world = await World.make(t);
    return await runCampaign(world, {
      ...{ seed, histories: most, steps: Number(values.steps), limitMs },
      shrinkMs: Number(values['shrink-seconds']) * 1000,
      ...(values.path === undefined ? {} : { path: values.path }),
      ...(values.favour === undefined ? {} : { favoured: new RegExp(values.favour) }),
      log: (line) => {
        if (!values.quiet) console.log(line);
      },
      onStep: (kind) => void counts.set(kind, (counts.get(kind) ?? 0) + 1),
      onHistory: () => {
        histories++;
      },
    });
  } finally {
    for (const hook of hooks.reverse()) await hook();
  }
}
