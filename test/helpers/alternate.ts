/**
 * A program that writes numbers to two files in turn, durably. It writes N to the first, then N to the
 * second, and continues with the next number. The second file is never ahead of the first.
 * `node alternate.ts FIRST SECOND`; ends at SIGTERM.
 */
import fs from 'node:fs';

const stopping = new AbortController();
process.on('SIGTERM', () => stopping.abort());

const fds = process.argv.slice(2).map((path) => fs.openSync(path, 'w'));
const line = Buffer.alloc(16);
for (let number = 1; !stopping.signal.aborted; number++) {
  line.write(String(number).padStart(16, '0'));
  for (const fd of fds) {
    fs.writeSync(fd, line, 0, line.length, 0);
    fs.fsyncSync(fd);
  }
  if (number === 1) process.stdout.write('1\n');
  await new Promise((resolve) => setImmediate(resolve));
}
