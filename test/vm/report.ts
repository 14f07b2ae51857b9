/**
 * A reporter of node:test that writes one JSON line for each test, for the host. The guest's tests appear
 * there as separate tests. The output of a test goes to the output next to it.
 */
import type { TestEvent } from 'node:test/reporters';

export interface TestRecord {
  readonly name: string;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  readonly milliseconds: number;
  /** The error of a failed test. */
  readonly failure?: string;
}

export const recordMark = '@@test ';

export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of source) {
    if (event.type === 'test:stdout' || event.type === 'test:stderr') yield event.data.message;
    if (event.type === 'test:diagnostic' && event.data.nesting > 0) yield `# ${event.data.message}\n`;
    if (event.type !== 'test:pass' && event.type !== 'test:fail') continue;
    const { name, nesting, details, skip } = event.data;
    // The event of a whole test file counts only if the file failed.
    if (nesting > 0 || details.type === 'suite') continue;
    const failed = event.type === 'test:fail';
    const record: TestRecord = {
      name,
      outcome: failed ? 'failed' : skip !== undefined && skip !== false ? 'skipped' : 'passed',
      milliseconds: Math.round(details.duration_ms),
      ...(failed ? { failure: describe((event.data.details as { error: Error }).error) } : {}),
    };
    yield `${recordMark}${JSON.stringify(record)}\n`;
  }
}

function describe(error: Error): string {
  const cause = error.cause;
  return cause instanceof Error
    ? (cause.stack ?? cause.message)
    : typeof cause === 'string'
      ? cause
      : error.message;
}
