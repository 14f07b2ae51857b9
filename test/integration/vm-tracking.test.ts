/**
 * Runs a part of the tracker's tests in the virtual machine, on one kernel. The part has every known hole,
 * the events that end an epoch, and random rounds on some kinds of devices. test/vm/campaign runs all tests.
 */
import { testInVmAlways } from '../vm/in-vm.ts';
import { stackDisks } from '../vm/stacks.ts';

testInVmAlways('eBPF tracking', {
  kernel: '6.1',
  files: ['test/vm/holes.test.ts', 'test/vm/lifecycle.test.ts', 'test/vm/completeness.test.ts'],
  disks: stackDisks,
  environment: { VM_STACKS: 'virtio,LVM,RAID 1' },
  deadlineMs: 10 * 60_000,
});
