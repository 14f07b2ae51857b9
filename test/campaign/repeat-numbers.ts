/**
 * A module that is loaded into dattod before its program. It makes the kernel's random numbers the same at
 * every read, in every process and thread. A virtual machine that is reset to a memory snapshot again and
 * again behaves like this.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const open = fs.openSync;
fs.openSync = (path, ...others) => open(path === '/dev/urandom' ? '/dev/zero' : path, ...others);
syncBuiltinESMExports();
