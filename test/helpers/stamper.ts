/**
 * A program that writes stamps: every sector of 512 bytes says which write it is of and where in its file it belongs,
 * so that no two writes are alike, and a sector that is not what it should be tells how old it is.
 * `node stamper.ts DIRECTORY SEED BYTES_PER_SECOND`; writes a line when its file is whole. Ends at SIGTERM.
 *
 * Writes of one to 128 sectors at any sector, buffered or past the page cache, some with an fsync.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { alignedBuffer } from '../../src/linux/aligned.ts';
import { seeded } from './random.ts';
import { type Stamp, writeStamp } from './stamps.ts';

const [directory = '', seed = '1', bytesPerSecond = '4194304'] = process.argv.slice(2);
const random = seeded(Number(seed));
const stopping = new AbortController();
process.on('SIGTERM', () => stopping.abort());

const sectors = 16 * 2048;
const longest = 128;
const data = alignedBuffer(longest * 512);
const path = join(directory, 'stamped');
const buffered = fs.openSync(path, 'w+');
const direct = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_DIRECT);

function write(fd: number, write: number, first: number, count: number): void {
  for (let sector = 0; sector < count; sector++)
    writeStamp(data.subarray(sector * 512, (sector + 1) * 512), {
      write,
      sector: first + sector,
    } satisfies Stamp);
  fs.writeSync(fd, data, 0, count * 512, first * 512);
}

for (let first = 0; first < sectors; first += longest) write(buffered, 0, first, longest);
fs.fsyncSync(buffered);
process.stdout.write('ready\n');

const started = performance.now();
let written = 0;
for (let number = 1; !stopping.signal.aborted; number++) {
  const count = 1 + Math.floor(random() * longest);
  const first = Math.floor(random() * (sectors - count));
  write(random() < 0.5 ? direct : buffered, number, first, count);
  if (random() < 0.1) fs.fsyncSync(buffered);
  written += count * 512;
  const due = started + (written / Number(bytesPerSecond)) * 1000;
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, due - performance.now())));
}
