/**
 * Backups from temporary LVM snapshots, in the virtual machine: this machine may have no device-mapper. 6.1 is a kernel
 * in which a frozen filesystem keeps a snapshot from being taken; test/vm/campaign has the others.
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
