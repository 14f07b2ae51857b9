/** Imported first by tests that write to /dev/vda: fails anywhere but in the virtual machine. */
import { readFileSync } from 'node:fs';

if (!readFileSync('/proc/cmdline', 'latin1').includes('vm.repo='))
  throw new Error(
    'this test writes over /dev/vda: it is for the virtual machine only (docs/testing-in-a-vm.md)',
  );
