/**
 * Writes to the scratch filesystem until a signal ends it. Makes, grows, renames and removes numbered files, and syncs
 * some of the writes.
 *
 *     writer.ts DIRECTORY
 */
import {
  appendFileSync,
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

const directory = process.argv[2]!;
mkdirSync(directory);
/** The most files that exist at once. */
const kept = 500;

for (let number = 1; ; number++) {
  const path = join(directory, `file-${number}`);
  writeFileSync(path, Buffer.alloc(1 + ((number * 7919) % 65536), `${number} `));
  if (number % 3 === 0) appendFileSync(path, `grown ${number}\n`);
  if (number % 5 === 0) renameSync(path, `${path}-renamed`);
  if (number > kept) {
    rmSync(join(directory, `file-${number - kept}`), { force: true });
    rmSync(join(directory, `file-${number - kept}-renamed`), { force: true });
  }
  appendFileSync(join(directory, 'log'), `${number}\n`);
  if (number % 50 === 0) {
    const log = openSync(join(directory, 'log'), 'r+');
    fsyncSync(log);
    closeSync(log);
  }
  await sleep(4);
}
