/**
 * Proves completeness: each change of a device of any kind is marked (rounds.ts), while other BPF programs
 * and interrupts keep the processors busy. Settings from the environment:
 *
 *     VM_SEED    seed of the first round (default 1)
 *     VM_ROUNDS  rounds for each kind (default 1)
 *
 *     VM_STACKS  parts of names, separated by commas
 *     VM_STYLE   bits or bytes
 *     VM_PIECE   I/N: every Nth kind from the Ith on
 *
 * The sums of each kind are printed when it is done, so that an interrupted run also has results.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { EbpfTracker } from '../../src/tracking/ebpf/tracker.ts';
import type { Style } from '../../src/tracking/ebpf/layout.ts';
import { describeDevice, sh } from './guest.ts';
import { fillWithNoise, runRound } from './rounds.ts';
import { loadStackModules, raise, stacks } from './stacks.ts';

const firstSeed = Number(process.env['VM_SEED'] ?? 1);
const rounds = Number(process.env['VM_ROUNDS'] ?? 1);
const wanted = (process.env['VM_STACKS'] ?? '').split(',');
const [piece = 1, pieces = 1] = (process.env['VM_PIECE'] ?? '1/1').split('/').map(Number);
const style = process.env['VM_STYLE'] as Style | undefined;
const mountPoint = '/mnt';
const noise = '/tmp/noise';
const total = { rounds: 0, changed: 0, marked: 0 };

let tracker: EbpfTracker;
let busy: ChildProcess;

before(async () => {
  loadStackModules();
  sh(`dd if=/dev/urandom of=${noise} bs=1M count=8 status=none`);
  tracker = await EbpfTracker.open(style === undefined ? {} : { style });
  // This device stays tracked. The programs are removed with the last device, and the emulated machine takes
  // ten seconds to load them.
  await tracker.track(describeDevice('/dev/vdc'));
  busy = spawn(process.execPath, [join(import.meta.dirname, 'bpf-load.ts')], {
    stdio: 'inherit',
  });
});

after(async () => {
  busy.kill('SIGKILL');
  await tracker.stop();
  console.log(`# all rounds: ${told(total)}`);
});

function told({ rounds, changed, marked }: typeof total): string {
  const ratio = (marked / Math.max(1, changed)).toFixed(2);
  return `${rounds} passed, ${changed} blocks of 4 KiB changed, ${marked} marked, ratio ${ratio}`;
}

const chosen = stacks
  .filter((each) => wanted.some((part) => each.name.includes(part)))
  .filter((_, index) => index % pieces === piece - 1);
for (const stack of chosen)
  test(`every changed block is marked: ${stack.name}`, async () => {
    const path = await raise(stack);
    const sum = { rounds: 0, changed: 0, marked: 0 };
    try {
      const device = describeDevice(path);
      fillWithNoise(device, noise);
      await tracker.track(device);
      for (let round = 0; round < rounds; round++) {
        const seed = firstSeed * 1000 + stacks.indexOf(stack) * 50 + round;
        const { name, discard } = stack;
        const counts = await runRound({
          tracker,
          device,
          name,
          discard,
          mountPoint,
          seed,
        });
        sum.rounds++;
        sum.changed += counts.changed;
        sum.marked += counts.marked;
      }
      await tracker.untrack(device);
    } finally {
      console.log(`# rounds of ${stack.name}: ${told(sum)}`);
      for (const what of ['rounds', 'changed', 'marked'] as const) total[what] += sum[what];
      sh(`umount ${mountPoint} 2>/dev/null || true; ${stack.down}`);
    }
  });
