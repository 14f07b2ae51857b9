/**
 * Turns one boot into one test of the host. Each test of the guest appears as a subtest. A guest that hangs,
 * panics or runs no test at all is a failure, with the end of its console in the message.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { test, type TestContext } from 'node:test';
import { findKernel } from './kernels.ts';
import { mostBoots, runSteadily, type VmOptions } from './machine.ts';

/** False, or the reason why tests in the virtual machine are skipped. */
export const skipVm =
  process.env['VM_TESTS'] === '1' ? false : 'VM_TESTS=1 boots the virtual machine (docs/testing-in-a-vm.md)';

/** The same for the quick part. It runs unless it is impossible or turned off. */
const skipShare =
  process.env['VM_TESTS'] === '0'
    ? 'VM_TESTS=0 leaves the virtual machine out'
    : process.getuid?.() !== 0
      ? 'root is needed'
      : spawnSync('qemu-system-x86_64', ['--version']).error !== undefined
        ? 'there is no qemu-system-x86_64 (Debian package qemu-system-x86)'
        : false;

export function testInVm(name: string, options: VmOptions): void {
  testIn(name, options, skipVm);
}

/** Defines a test that always runs. It may take only a few minutes of ./run_tests. */
export function testInVmAlways(name: string, options: VmOptions): void {
  testIn(name, options, skipShare);
}

function testIn(name: string, options: VmOptions, skip: string | false): void {
  const timeout = mostBoots * options.deadlineMs + 120_000;
  test(`${name} (kernel ${options.kernel})`, { skip, timeout }, async (t) => {
    try {
      await findKernel(options.kernel);
    } catch (thrown) {
      t.skip(`no kernel ${options.kernel} can be had: ${String(thrown).split('\n')[0]!}`);
      return;
    }
    await bootAndReport(t, options);
  });
}

/** Boots the machine once, with each test of the guest as a subtest. Boots again if V8 died in the guest. */
export async function bootAndReport(t: TestContext, options: VmOptions): Promise<void> {
  const result = await runSteadily(options, (line) => t.diagnostic(line));
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
