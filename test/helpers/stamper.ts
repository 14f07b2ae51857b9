/**
 * A program that writes stamps. Every sector of 512 bytes holds the number of its write and its place in the
 * file. So no two writes are alike, and a wrong sector shows how old it is.
 *
 * `node stamper.ts DIRECTORY SEED BYTES_PER_SECOND MEBIBYTES SECTORS` writes a line when its file is whole.
 * Ends at SIGTERM.
 *
 * It writes 1 to 128 sectors at any sector, buffered or past the page cache, sometimes with an fsync. If
 * SECTORS is given, it acts like a database: each write has this number of sectors, at a multiple of them,
 * past the page cache.
 */
import fs from 'node:fs';
import { join } from 'node:path';
import { alignedBuffer } from '../../src/linux/aligned.ts';
import { seeded } from './random.ts';
import { type Stamp, writeStamp } from './stamps.ts';

const [directory = '', seed = '1', bytesPerSecond = '4194304', mebibytes = '16', fixed = '0'] =
  process.argv.slice(2);
const random = seeded(Number(seed));
const stopping = new AbortController();
process.on('SIGTERM', () => stopping.abort());

const sectors = Number(mebibytes) * 2048;
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
  const count = Number(fixed) || 1 + Math.floor(random() * longest);
  const place = Math.floor(random() * (sectors - count));
  const first = fixed === '0' ? place : place - (place % count);
  write(fixed !== '0' || random() < 0.5 ? direct : buffered, number, first, count);
  if (fixed === '0' && random() < 0.1) fs.fsyncSync(buffered);
  written += count * 512;
  const ahead = started + (written / Number(bytesPerSecond)) * 1000 - performance.now();
  // Timers are too coarse for thousands of writes a second.
  if (fixed === '0' || ahead > 1) await new Promise((resolve) => setTimeout(resolve, Math.max(0, ahead)));
  else if (number % 64 === 0) await new Promise((resolve) => setImmediate(resolve));
}
