/**
 * Runs all tests of the virtual machine, for manual use, with the numbers that docs/testing-in-a-vm.md
 * records. By default it runs 4 rounds on each of 18 kinds of devices on each of three kernels. This takes
 * hours on two quiet processors (a kernel's rounds take some 20 minutes with another machine beside it).
 */
import { parseArgs } from 'node:util';
import { kernelSeries, type KernelSeries } from './kernels.ts';
import { runSteadily, type VmOptions } from './machine.ts';
import { stackDisks } from './stacks.ts';

const { values, positionals } = parseArgs({
  options: {
    rounds: { type: 'string', default: '4' },
    seed: { type: 'string', default: '1' },
    stacks: { type: 'string', default: '' },
    only: { type: 'string', default: '' },
    pieces: { type: 'string', default: '3' },
  },
  allowPositionals: true,
});
const kernels = (positionals.length > 0 ? positionals : kernelSeries) as KernelSeries[];
for (const kernel of kernels)
  if (!kernelSeries.includes(kernel)) {
    console.error(`campaign: no kernel ${kernel}; there are ${kernelSeries.join(', ')}`);
    process.exit(2);
  }

interface Part {
  readonly name: string;
  readonly options: Omit<VmOptions, 'kernel' | 'disks'>;
}

const minute = 60_000;
const pieces = Number(values.pieces);
const parts: readonly Part[] = [
  {
    name: 'holes and lifecycle',
    options: { files: ['test/vm/holes.test.ts', 'test/vm/lifecycle.test.ts'], deadlineMs: 15 * minute },
  },
  ...['integrity', 'confidentiality'].map((mode) => ({
    name: `holes under lockdown=${mode}`,
    options: { files: ['test/vm/holes.test.ts'], append: `lockdown=${mode}`, deadlineMs: 10 * minute },
  })),
  {
    name: 'LVM snapshots',
    options: { files: ['test/vm/lvm-snapshot.test.ts'], deadlineMs: 20 * minute },
  },
  {
    name: 'mounts through nbd-client',
    options: { files: ['test/vm/nbd-mount.test.ts'], deadlineMs: 20 * minute },
  },
  {
    name: 'vaults on NFS',
    options: { files: ['test/vm/nfs-vault.test.ts'], deadlineMs: 25 * minute },
  },
  {
    name: 'LVM volumes left suspended',
    options: { files: ['test/vm/lvm-suspended.test.ts'], deadlineMs: 10 * minute },
  },
  ...Array.from({ length: pieces }, (_, piece) => ({
    name: `completeness, piece ${piece + 1} of ${pieces}`,
    options: {
      files: ['test/vm/completeness.test.ts'],
      environment: {
        ...{ VM_ROUNDS: values.rounds, VM_SEED: values.seed, VM_STACKS: values.stacks },
        VM_PIECE: `${piece + 1}/${pieces}`,
      },
      deadlineMs: 40 * minute,
    },
  })),
];

let failures = 0;
for (const kernel of kernels)
  for (const part of parts) if (part.name.includes(values.only)) await run(kernel, part);
process.exitCode = failures > 0 ? 1 : 0;

/** Prints the result at once, because a campaign may be interrupted. */
async function run(kernel: KernelSeries, { name, options }: Part): Promise<void> {
  const result = await runSteadily({ kernel, disks: stackDisks, ...options }, (line) => console.log(line));
  const failed = result.tests.filter((test) => test.outcome === 'failed');
  const complete = result.status !== undefined;
  failures += failed.length + (complete ? 0 : 1);
  console.log(
    `${result.release}: ${name}: ${result.tests.length - failed.length} passed, ${failed.length} failed, ${result.seconds} s${complete ? '' : ', NOT COMPLETE'}`,
  );
  for (const line of result.output.split('\n')) if (line.startsWith('# ')) console.log(`  ${line.slice(2)}`);
  for (const test of failed) console.log(`  FAILED ${test.name}: ${test.failure ?? ''}`);
  if (!complete) console.log(`${result.output.slice(-3000)}\n${result.console.slice(-3000)}`);
}
