/**
 * A reporter of node:test that writes one JSON line a test, for the host: the guest's tests appear there as tests of
 * their own. Whatever a test prints goes to the output beside it.
 */
import type { TestEvent } from 'node:test/reporters';

export interface TestRecord {
  readonly name: string;
  readonly outcome: 'passed' | 'failed' | 'skipped';
  readonly milliseconds: number;
  /** What a failed test threw. */
  readonly failure?: string;
}

export const recordMark = '@@test ';

export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  for await (const event of source) {
    if (event.type === 'test:stdout' || event.type === 'test:stderr') yield event.data.message;
    if (event.type === 'test:diagnostic' && event.data.nesting > 0) yield `# ${event.data.message}\n`;
    if (event.type !== 'test:pass' && event.type !== 'test:fail') continue;
    const { name, nesting, details, skip } = event.data;
    // A file that holds tests counts only where it failed as a whole.
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
