/**
 * Tests slow, hanging, failing and vanishing disks in the virtual machine, because this machine may have no
 * device-mapper.
 */
import { MiB } from '../../src/base/bytes.ts';
import { testInVm } from '../vm/in-vm.ts';

testInVm('failing disks', {
  kernel: '6.1',
  files: ['test/vm/failing-disks.test.ts'],
  disks: [
    { bus: 'virtio', size: 64 * MiB },
    { bus: 'virtio', size: 128 * MiB },
    { bus: 'scsi', size: 32 * MiB },
  ],
  deadlineMs: 15 * 60_000,
});
