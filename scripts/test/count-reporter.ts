/**
 * A reporter for node:test that yields one line of JSON at the end. The line has the numbers of passed, failed and
 * skipped tests, the names of the failed and skipped ones, and the time that each file took.
 *
 * It runs beside the reporter `spec`, which is for people but prints the reasons of failures only at the end. So this
 * one writes each reason to standard error at once. An interrupted run has then printed why its tests failed.
 */
import type { TestEvent } from 'node:test/reporters';
import { relative } from 'node:path';
import { inspect } from 'node:util';

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
  /** The failed tests as `file: name`, for the summary. */
  failures: string[];
  /** The skipped tests as `file: name (reason)`. */
  skips: string[];
  /** The time that each file took, from the start of its process to its end. */
  files: { readonly file: string; readonly seconds: number }[];
}

export const noCounts = (): Counts => ({
  passed: 0,
  failed: 0,
  skipped: 0,
  failures: [],
  skips: [],
  files: [],
});

export default async function* countReporter(events: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const counts = noCounts();
  for await (const event of events) {
    if (event.type === 'test:complete' && isWholeFile(event.data))
      counts.files.push({
        file: relative('', event.data.name),
        seconds: event.data.details.duration_ms / 1000,
      });
    if (event.type !== 'test:pass' && event.type !== 'test:fail') continue;
    const { data } = event;
    if (data.details.type === 'suite' && !failedItself(event)) continue;
    const name = `${data.file === undefined ? '' : `${relative('', data.file)}: `}${data.name}`;
    const skip = data.skip ?? data.todo;
    if (skip !== undefined && skip !== false) {
      counts.skipped++;
      counts.skips.push(typeof skip === 'string' ? `${name} (${skip})` : name);
    } else if (event.type === 'test:pass') {
      counts.passed++;
    } else {
      counts.failed++;
      counts.failures.push(name);
      process.stderr.write(`\nFAILED: ${name}\n${reasonOf(event)}\n\n`);
    }
  }
  yield `${JSON.stringify(counts)}\n`;
}

/** Returns the error that failed the test. node:test wraps it in another error, which holds no more information. */
function reasonOf(event: TestEvent): string {
  if (event.type !== 'test:fail') return '';
  const { error } = event.data.details;
  return inspect(error.cause instanceof Error ? error.cause : error, { depth: 4 }).slice(0, 8000);
}

/**
 * Returns whether the event is about a whole file. The runner reports a file as a test whose name is the file's path.
 */
function isWholeFile({
  name,
  file,
  nesting,
}: Extract<TestEvent, { type: 'test:complete' }>['data']): boolean {
  return nesting === 0 && file !== undefined && relative(file, name) === '';
}

/** Returns false for a suite that failed only because a test in it failed. Such a suite is not counted again. */
function failedItself(event: TestEvent): boolean {
  return (
    event.type === 'test:fail' &&
    (event.data.details.error as { failureType?: string }).failureType !== 'subtestsFailed'
  );
}

export function addCounts(counts: Counts, more: Counts): void {
  counts.passed += more.passed;
  counts.failed += more.failed;
  counts.skipped += more.skipped;
  counts.failures.push(...more.failures);
  counts.skips.push(...more.skips);
  counts.files.push(...more.files);
}
