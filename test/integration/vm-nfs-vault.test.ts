/**
 * Tests vaults on NFS in the virtual machine, because this machine's kernel may have neither server nor
 * client.
 */
import { MiB } from '../../src/base/bytes.ts';
import { testInVm } from '../vm/in-vm.ts';

testInVm('vaults on NFS', {
  kernel: '6.1',
  files: ['test/vm/nfs-vault.test.ts'],
  disks: [
    { bus: 'virtio', size: 512 * MiB },
    { bus: 'virtio', size: 32 * MiB },
  ],
  deadlineMs: 25 * 60_000,
});
