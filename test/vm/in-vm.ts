/**
 * One test of the host for one boot: each test of the guest appears as a subtest. A guest that hangs, panics or
 * runs no test at all is a failure with the end of its console in the message.
 */
import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { runInVm, type VmOptions } from './machine.ts';

/** False, or why tests in the virtual machine are left out. */
export const skipVm =
  process.env['VM_TESTS'] === '1' ? false : 'VM_TESTS=1 boots the virtual machine (docs/testing-in-a-vm.md)';

export function testInVm(name: string, options: VmOptions): void {
  const timeout = options.deadlineMs + 120_000;
  test(`${name} (kernel ${options.kernel})`, { skip: skipVm, timeout }, (t) => bootAndReport(t, options));
}

/** One boot, with each test of the guest as a subtest. */
export async function bootAndReport(t: TestContext, options: VmOptions): Promise<void> {
  const result = await runInVm(options);
  t.diagnostic(`${result.release}: ${result.seconds} s`);
  for (const line of result.output.split('\n')) if (line.startsWith('# ')) t.diagnostic(line.slice(2));
  for (const record of result.tests)
    await t.test(`${record.name} (${record.milliseconds} ms in the guest)`, (each) => {
      if (record.outcome === 'skipped') each.skip();
      if (record.outcome === 'failed')
        assert.fail(`in the guest: ${record.failure ?? ''}\n${tail(result.output)}`);
    });
  assert.ok(result.tests.length > 0, `no test ran\n${tail(result.output)}\n${tail(result.console)}`);
  assert.equal(
    result.status,
    result.tests.some((record) => record.outcome === 'failed') ? 1 : 0,
    `the guest did not come to its end\n${tail(result.output)}\n${tail(result.console)}`,
  );
}

function tail(output: string): string {
  return output.slice(-4000);
}
