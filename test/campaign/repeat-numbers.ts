/**
 * Loaded into dattod before its program: the kernel's random numbers are the same at every read, in every process and
 * thread, as after a virtual machine was put back to a memory snapshot again and again.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';

const open = fs.openSync;
fs.openSync = (path, ...others) => open(path === '/dev/urandom' ? '/dev/zero' : path, ...others);
syncBuiltinESMExports();
