/**
 * The steps of a test run. Each runs in its own process group, which a watchdog ends when the time limit is reached.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { addCounts, type Counts, noCounts } from './count-reporter.ts';

type Environment = Record<string, string | undefined>;

export interface TestFilesOptions {
  readonly environment: Environment;
  /** Time limit for all files together, milliseconds. */
  readonly limitMs: number;
  /** Files that run at once. */
  readonly concurrency: number;
}

/** Time limit for one test, milliseconds. */
const testLimit = 5 * 60_000;

/** Runs a command. A failure of the command counts as one failed test. Returns whether the command succeeded. */
export async function runStep(
  name: string,
  command: readonly string[],
  environment: Environment,
  total: Counts,
): Promise<boolean> {
  console.log(`\n== ${name}`);
  const { outcome, seconds } = await run(command, environment, 10 * 60_000);
  console.log(`${name}: ${outcome === undefined ? 'ok' : `FAILED: ${outcome}`}, ${seconds} s`);
  if (outcome !== undefined)
    addCounts(total, { ...noCounts(), failed: 1, failures: [`${name}: ${outcome}`] });
  return outcome === undefined;
}

/** Runs test files with node:test and adds up what its reporter counted. */
export async function runTestFiles(
  name: string,
  files: readonly string[],
  options: TestFilesOptions,
  total: Counts,
): Promise<void> {
  if (files.length === 0) return;
  console.log(`\n== ${name}: ${files.length} files`);
  const folder = mkdtempSync(join(tmpdir(), 'test-counts-'));
  const results = join(folder, 'counts.json');
  const command = [
    process.execPath,
    '--disable-warning=ExperimentalWarning',
    join(import.meta.dirname, 'run-files.ts'),
    results,
    String(options.concurrency),
    String(testLimit),
    ...files,
  ];
  const { outcome, seconds } = await run(command, options.environment, options.limitMs);
  const text = existsSync(results) ? readFileSync(results, 'utf8') : '';
  const counts = text === '' ? noCounts() : (JSON.parse(text) as Counts);
  rmSync(folder, { recursive: true });
  // If the runner failed without a failed test, because it crashed or the watchdog ended it, that counts as a failure.
  if (outcome !== undefined && counts.failed === 0) {
    counts.failed++;
    counts.failures.push(`${name}: ${outcome}`);
  }
  addCounts(total, counts);
  console.log(
    `${name}: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped, ${seconds} s`,
  );
}

/** Runs a command. `outcome` is the failure, or undefined if the command exited with 0 in time. */
async function run(
  [program, ...rest]: readonly string[],
  environment: Environment,
  limitMs: number,
): Promise<{ outcome: string | undefined; seconds: number }> {
  const started = performance.now();
  const child = spawn(program!, rest, {
    env: environment,
    stdio: ['ignore', 'inherit', 'inherit'],
    detached: true,
  });
  const state = { late: false };
  const watchdog = setTimeout(() => {
    state.late = true;
    signalGroup(child, 'SIGTERM');
    setTimeout(() => signalGroup(child, 'SIGKILL'), 20_000).unref();
  }, limitMs);
  const interrupted = () => signalGroup(child, 'SIGINT');
  process.on('SIGINT', interrupted);
  process.on('SIGTERM', interrupted);
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) => {
    child.on('error', (error) => {
      console.error(error.message);
      resolve([127, null]);
    });
    child.on('exit', (...how) => resolve(how));
  });
  clearTimeout(watchdog);
  process.off('SIGINT', interrupted);
  process.off('SIGTERM', interrupted);
  const seconds = Math.round((performance.now() - started) / 1000);
  if (state.late) return { outcome: `not done after ${Math.round(limitMs / 1000)} s`, seconds };
  if (code === 0) return { outcome: undefined, seconds };
  return { outcome: code === null ? `killed by ${signal ?? 'a signal'}` : `exit code ${code}`, seconds };
}

/** Signals the child's process group. The child leads the group, so its process ID is also the ID of the group. */
function signalGroup(child: ChildProcess, signal: NodeJS.Signals): void {
  if (child.pid === undefined) return;
  try {
    process.kill(-child.pid, signal);
  } catch {
    // The process group has ended in the meantime.
  }
}
