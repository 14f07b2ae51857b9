/**
 * Runs test files with node:test in the given order. `node --test` would sort them by name.
 *
 *     run-files.ts COUNTS CONCURRENCY TIMEOUT_MS FILE…
 *
 * Writes the counts (count-reporter.ts) to the file COUNTS. Exits with 1 if a test failed.
 */
import { createWriteStream } from 'node:fs';
import { run } from 'node:test';
import { spec } from 'node:test/reporters';
import countReporter from './count-reporter.ts';

const [counts, concurrency, timeout, ...files] = process.argv.slice(2);
const interrupted = new AbortController();
// The processes of the test files get the signal too, because they are in the same process group.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => interrupted.abort());
const stream = run({
  files,
  concurrency: Number(concurrency),
  timeout: Number(timeout),
  signal: interrupted.signal,
});
stream.on('test:fail', () => {
  process.exitCode = 1;
});
stream.compose(spec).pipe(process.stdout);
stream.compose(countReporter).pipe(createWriteStream(counts!));
