/**
 * Tests mounts through the kernel's nbd client in the virtual machine, because this machine may have no nbd
 * module.
 */
import { testInVm } from '../vm/in-vm.ts';

testInVm('mounts through nbd-client', {
  kernel: '6.1',
  files: ['test/vm/nbd-mount.test.ts'],
  deadlineMs: 15 * 60_000,
});
