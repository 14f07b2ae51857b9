/**
 * A reporter for node:test that yields one line of JSON at the end: how many tests passed, failed and were
 * skipped, the names of those that did, and how long each file took. It runs beside `spec`, which is for people but gives reasons only when all
 * has ended: so each failure's reason goes to standard error at once, and a run that is cut short has said why.
 */
import type { TestEvent } from 'node:test/reporters';
import { relative } from 'node:path';
import { inspect } from 'node:util';

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
  /** `file: name`, for the summary. */
  failures: string[];
  /** `file: name (reason)`. */
  skips: string[];
  /** How long each file took, from the start of its process to its end. */
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

/** The error that failed the test; the wrapper that node:test puts around it says nothing more. */
function reasonOf(event: TestEvent): string {
  if (event.type !== 'test:fail') return '';
  const { error } = event.data.details;
  return inspect(error.cause instanceof Error ? error.cause : error, { depth: 4 }).slice(0, 8000);
}

/** The runner takes a file for a test whose name is its path. */
function isWholeFile({
  name,
  file,
  nesting,
}: Extract<TestEvent, { type: 'test:complete' }>['data']): boolean {
  return nesting === 0 && file !== undefined && relative(file, name) === '';
}

/** A suite that only failed because of a test in it is not counted beside that test. */
function failedItself(event: TestEvent): boolean {
  return (
    event.type === 'test:fail' &&
    (event.data.details.error as { failureType?: string }).failureType !== 'subtestsFailed'
  );
}

/** Adds `more` to `counts`. */
export function addCounts(counts: Counts, more: Counts): void {
  counts.passed += more.passed;
  counts.failed += more.failed;
  counts.skipped += more.skipped;
  counts.failures.push(...more.failures);
  counts.skips.push(...more.skips);
  counts.files.push(...more.files);
}
