/** A module that tests import first if they write to /dev/vda. It fails outside the virtual machine. */
import { readFileSync } from 'node:fs';

if (!readFileSync('/proc/cmdline', 'latin1').includes('vm.repo='))
  throw new Error(
    'this test writes over /dev/vda: it is for the virtual machine only (docs/testing-in-a-vm.md)',
  );
