/**
 * `./run_tests [PATTERN]` runs the quick checks, the unit tests, the build and the integration tests, and then searches
 * for things that the tests left behind. Its last line is `N passed, N failed, N skipped`. With PATTERN, it runs only
 * test files whose path contains PATTERN, and no quick checks.
 */
import { randomUUID } from 'node:crypto';
import { chmodSync, globSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { builtVariable } from '../../test/helpers/programs.ts';
import { addCounts, noCounts } from './count-reporter.ts';
import { longestFirst } from './order.ts';
import { leftovers, marker, processesOf, takePicture } from './leftovers.ts';
import { runStep, runTestFiles } from './steps.ts';

const root = join(import.meta.dirname, '../..');
process.chdir(root);
const pattern = process.argv[2] ?? '';
if (process.argv.length > 3 || pattern.startsWith('-')) {
  console.error('usage: ./run_tests [PATTERN]    PATTERN: part of the path of the test files to run');
  process.exit(2);
}

/**
 * Time limit for all integration tests together, milliseconds. It is meant for a machine that hangs, not for a slow
 * one.
 */
const integrationLimit = 45 * 60_000;

const started = performance.now();
const total = noCounts();
const run = randomUUID();
// The name is short because Unix sockets lie in this directory, and the length of their paths is limited.
const scratch = mkdtempSync(join(tmpdir(), 'at-'));
// Debian's nbd-server opens its images as the user nbd.
chmodSync(scratch, 0o755);
const environment = {
  ...process.env,
  [marker]: run,
  TMPDIR: scratch,
  // Each test file, and each program that it starts from the sources, is a process of its own. With this cache, no
  // process compiles code that another process has already compiled.
  NODE_COMPILE_CACHE: join(root, 'node_modules/.cache/node-compile-cache'),
};
const before = takePicture(run, scratch);

const unit = globSync(['src/**/*.test.ts', 'test/unit/**/*.test.ts']).sort();
const integration = longestFirst(globSync('test/integration/**/*.test.ts'));
/** Tests that would slow down or disturb every other test that runs at the same time. */
const alone = globSync('test/alone/**/*.test.ts').sort();
const chosen = (files: readonly string[]) => files.filter((file) => file.includes(pattern));

if (pattern === '') {
  // Each check has one thread. The lint takes about as long as all others together.
  const inTurn = async (scripts: readonly string[]): Promise<void> => {
    for (const script of scripts)
      await runStep(`npm run ${script}`, ['npm', 'run', '--silent', script], environment, total);
  };
  await Promise.all([inTurn(['lint']), inTurn(['format:check', 'layers', 'unused', 'prose', 'types'])]);
}
await runTestFiles('unit tests', chosen(unit), { environment, limitMs: 5 * 60_000, concurrency: 2 }, total);
const isBuilt = await runStep('./one_step_build', ['./one_step_build'], environment, total);
/** The integration tests run the programs that ship. */
const withBuild = isBuilt ? { ...environment, [builtVariable]: join(root, 'build') } : environment;

if (process.getuid?.() === 0) {
  await runTestFiles(
    'integration tests',
    chosen(integration),
    // More files at once than two processors can run, because many tests wait for limited rates, time-outs and servers.
    { environment: withBuild, limitMs: integrationLimit, concurrency: 3 },
    total,
  );
  await runTestFiles(
    'tests that run alone',
    chosen(alone),
    { environment: withBuild, limitMs: 5 * 60_000, concurrency: 1 },
    total,
  );
} else {
  const banner = '!'.repeat(80);
  console.log(
    `\n${banner}\nNOT ROOT: ${chosen([...integration, ...alone]).length} files of integration tests are SKIPPED, which is`,
  );
  console.log(`nearly everything that matters. Run ./run_tests as root.\n${banner}`);
  addCounts(total, {
    ...noCounts(),
    skipped: chosen([...integration, ...alone]).length,
    skips: chosen([...integration, ...alone]).map((file) => `${file} (root is needed)`),
  });
}

console.log('\n== what the tests left behind');
const left = await leftovers(before, run, scratch);
for (const thing of left) console.log(`LEFT BEHIND: ${thing}`);
for (const pid of processesOf(run)) endProcess(pid);
if (left.length === 0) console.log('nothing');
addCounts(total, {
  ...noCounts(),
  failed: left.length,
  failures: left.map((thing) => `left behind: ${thing}`),
});
if (left.length === 0) rmSync(scratch, { recursive: true, force: true });

console.log(`\n== summary, after ${Math.round((performance.now() - started) / 1000)} s`);
const slowest = total.files.toSorted((a, b) => b.seconds - a.seconds).slice(0, 10);
for (const { file, seconds } of slowest) console.log(`SLOWEST: ${seconds.toFixed(1).padStart(6)} s ${file}`);
for (const skip of total.skips) console.log(`SKIPPED: ${skip}`);
for (const failure of total.failures) console.log(`FAILED: ${failure}`);
if (total.passed + total.failed === 0) {
  console.log(`FAILED: no test has "${pattern}" in its path`);
  total.failed++;
}
console.log(`${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exitCode = total.failed > 0 ? 1 : 0;

function endProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // The process has ended in the meantime.
  }
}
