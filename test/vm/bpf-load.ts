/**
 * Keeps the processors busy with work that would make a tracker of another form lose events. It updates a
 * hash map by bpf(2) without pause, and makes direct writes whose interrupts come at the same time. Runs
 * until it is killed.
 */
import { spawn } from 'node:child_process';
import { createMap, updateMap } from '../../src/linux/bpf/maps.ts';

const map = createMap({ type: 'hash', keySize: 4, valueSize: 64, entries: 4096, name: 'busy' });
const key = Buffer.alloc(4);
const value = Buffer.alloc(64);
const writer = spawn(
  'sh',
  [
    '-c',
    'while :; do dd if=/dev/zero of=/dev/vdc bs=4k seek=100000 count=200 oflag=direct conv=notrunc status=none || exit; sleep 0.2; kill -0 "$1" || exit; done',
    'sh',
    String(process.pid),
  ],
  { stdio: 'ignore' },
);
writer.unref();

/** Runs for half of the time. */
function burst(): void {
  const until = performance.now() + 20;
  for (let i = 0; performance.now() < until; i++) {
    key.writeUInt32LE(i & 4095);
    updateMap(map, key, value);
  }
  setTimeout(burst, 20);
}
burst();
