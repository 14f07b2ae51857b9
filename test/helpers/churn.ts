/**
 * A program that loads a directory like databases and mail servers do. It writes with fsync, creates,
 * renames, deletes and truncates files, and never deletes an open file. Ends at SIGTERM.
 * `node churn.ts DIRECTORY [PAUSE]`: PAUSE is in milliseconds after each round. Prints one line on standard
 * output for the first round and for every 50 further ones.
 */
import fs from 'node:fs';
import { join } from 'node:path';

const directory = process.argv[2] ?? '';
const pause = Number(process.argv[3] ?? 2);
const data = Buffer.alloc(48 * 1024);
const stopping = new AbortController();
process.on('SIGTERM', () => stopping.abort());

function write(path: string, length: number, sync: boolean): void {
  const fd = fs.openSync(path, 'w');
  try {
    for (let done = 0; done < length; done += data.length)
      fs.writeSync(fd, data, 0, Math.min(data.length, length - done));
    if (sync) fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
}

for (let round = 0; !stopping.signal.aborted; round++) {
  data.fill(`round ${round} `);
  const folder = join(directory, `d${round % 5}`);
  fs.mkdirSync(folder, { recursive: true });
  const path = join(folder, `f${round % 40}`);
  write(`${path}.new`, (round * 4099) % (256 * 1024), round % 3 === 0);
  fs.renameSync(`${path}.new`, path);
  if (round % 4 === 1)
    fs.rmSync(join(directory, `d${(round + 2) % 5}`, `f${(round * 7) % 40}`), { force: true });
  if (round % 7 === 3) fs.truncateSync(path, 1000);
  if (round % 11 === 5) fs.linkSync(path, join(folder, `link-${round}`));
  if (round % 11 === 6)
    fs.rmSync(join(directory, `d${(round - 1) % 5}`, `link-${round - 1}`), { force: true });
  if (round % 97 === 50) fs.rmSync(folder, { recursive: true, force: true });
  if (round % 50 === 0) process.stdout.write(`${round}\n`);
  // Other processes need the processors too, and the signal has to be handled.
  await new Promise((resolve) => setTimeout(resolve, pause));
}
