/**
 * One boot of the emulated machine, until it powers off or its power is cut. It uses qemu's TCG, so no
 * /dev/kvm is needed.
 */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface Drive {
  /** Path of a raw image. */
  readonly file: string;
  readonly readOnly?: boolean;
  /** Discards all writes to it after the boot. */
  readonly discardWrites?: boolean;
}

export interface MachineBoot {
  readonly kernel: string;
  readonly initrd: string;
  /** Text that is added to the kernel's command line. */
  readonly append: string;
  readonly drives: readonly Drive[];
  readonly deadlineMs: number;
  /** The power is cut when the guest has written this to its second serial line. */
  readonly cutAt?: RegExp;
}

export interface MachineResult {
  /** The first serial line: kernel and systemd. */
  readonly console: string;
  /** The second serial line. */
  readonly results: string;
  readonly seconds: number;
}

const lookMs = 1_000;

/** Boots the machine and leaves nothing behind. Throws if it was not off at its deadline. */
export async function bootMachine(boot: MachineBoot): Promise<MachineResult> {
  const work = await mkdtemp(join(tmpdir(), 'dattod-machine-'));
  const [serial, results] = [join(work, 'console'), join(work, 'results')];
  const started = performance.now();
  try {
    const ended = await run(boot, serial, results);
    const found = { console: text(serial), results: text(results) };
    if (!ended)
      throw new Error(
        `the machine was not off after ${boot.deadlineMs / 1000} s:\n${found.results}\n${found.console.slice(-3000)}`,
      );
    return { ...found, seconds: Math.round((performance.now() - started) / 1000) };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Returns false if the machine had to be killed at its deadline. */
function run(boot: MachineBoot, serial: string, results: string): Promise<boolean> {
  const drives = boot.drives.flatMap(({ file, readOnly, discardWrites }) => [
    '-drive',
    `file=${file},format=raw,if=virtio,discard=unmap` +
      (discardWrites === true ? ',snapshot=on' : readOnly === true ? ',readonly=on' : ',cache=unsafe'),
  ]);
  // One processor: on a busy host two would wait for each other. A machine that panics ends. no_timer_check:
  // an emulated timer that is late must not cause a panic.
  const append = `console=ttyS0,115200 mitigations=off no_timer_check panic=-1 ${boot.append}`;
  const args = [
    ...['-accel', 'tcg,thread=multi,tb-size=512', '-cpu', 'max,pku=off', '-smp', '1', '-m', '2048'],
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot'],
    ...['-serial', `file:${serial}`, '-serial', `file:${results}`],
    ...['-kernel', boot.kernel, '-initrd', boot.initrd, '-append', append, '-device', 'virtio-rng-pci'],
    ...drives,
  ];
  return new Promise((resolve, reject) => {
    const child = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'ignore', 'inherit'] });
    let late = false;
    const kill = (): void => void child.kill('SIGKILL');
    const timer = setTimeout(() => {
      late = true;
      kill();
    }, boot.deadlineMs);
    const look = setInterval(() => {
      if (boot.cutAt?.test(text(results)) === true) kill();
    }, lookMs);
    process.once('exit', kill);
    child.once('error', reject);
    child.once('close', () => {
      clearTimeout(timer);
      clearInterval(look);
      process.off('exit', kill);
      resolve(!late);
    });
  });
}

function text(path: string): string {
  return existsSync(path) ? readFileSync(path, 'utf8') : '';
}
