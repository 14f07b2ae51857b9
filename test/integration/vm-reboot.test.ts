/**
 * Proves in the virtual machine that an incremental continues across a clean reboot if nothing can have been
 * written in between. Otherwise it becomes a differential with the reason. There are six boots of the same
 * disks.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { bootAndReport, skipVm } from '../vm/in-vm.ts';

const sizes = [64, 320, 64, 1024, 16, 16];
const boots = 6;

test('incrementals over reboots (kernel 6.1)', { skip: skipVm, timeout: 60 * 60_000 }, async (t) => {
  const directory = await mkdtemp(join(tmpdir(), 'dattod-reboot-'));
  try {
    const disks = sizes.map((size, number) => ({
      bus: 'virtio' as const,
      size: size * MiB,
      image: join(directory, `disk${number}`),
    }));
    for (let boot = 0; boot < boots; boot++)
      await t.test(`boot ${boot + 1}`, (each) =>
        bootAndReport(each, {
          kernel: '6.1',
          files: ['test/vm/reboot.test.ts'],
          disks,
          environment: { VM_BOOT: String(boot) },
          deadlineMs: 10 * 60_000,
        }),
      );
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
