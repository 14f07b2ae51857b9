/**
 * Tests backups from temporary LVM snapshots in the virtual machine, because this machine may have no
 * device-mapper. In kernel 6.1 a frozen filesystem prevents a snapshot; test/vm/campaign has the other
 * kernels.
 */
import { testInVm } from '../vm/in-vm.ts';
import { volumeDisks } from '../vm/volumes.ts';

testInVm('LVM snapshots', {
  kernel: '6.1',
  files: ['test/vm/lvm-snapshot.test.ts'],
  disks: volumeDisks,
  deadlineMs: 20 * 60_000,
});

testInVm('LVM volumes that were left suspended', {
  kernel: '6.1',
  files: ['test/vm/lvm-suspended.test.ts'],
  disks: volumeDisks,
  deadlineMs: 10 * 60_000,
});
