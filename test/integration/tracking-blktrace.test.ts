/** Runs the blktrace tracker on one of Debian's kernels, in the virtual machine. */
import { MiB } from '../../src/base/bytes.ts';
import { testInVm } from '../vm/in-vm.ts';

testInVm('blktrace', {
  kernel: '6.1',
  files: ['test/vm/blktrace/loss.test.ts', 'test/vm/blktrace/completeness.test.ts'],
  disks: [
    { bus: 'virtio', size: 64 * MiB },
    { bus: 'virtio', size: 128 * MiB },
    { bus: 'scsi', size: 64 * MiB },
  ],
  deadlineMs: 15 * 60_000,
});
