/**
 * A virtual machine for tests that need features which the running kernel lacks: tracing, device-mapper, nbd.
 * It boots one of Debian's kernels under qemu's emulation (no /dev/kvm needed), and sees the host's root
 * read-only under an overlay. It runs test files there with the pinned Node, and powers off.
 * docs/testing-in-a-vm.md describes the use and the cost.
 */
import { spawn } from 'node:child_process';
import { createWriteStream, existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GiB } from '../../src/base/bytes.ts';
import { buildInitramfs } from './initramfs.ts';
import { findKernel, type Kernel, type KernelSeries } from './kernels.ts';
import { recordMark, type TestRecord } from './report.ts';

export interface VmDisk {
  /** `virtio` becomes vda, vdb, …; `scsi` sda, …; `nvme` nvme0n1, …; `nvme-multipath` has two controllers. */
  readonly bus: 'virtio' | 'scsi' | 'nvme' | 'nvme-multipath';
  /** Bytes. Default 1 GiB, sparse. */
  readonly size?: number;
  /**
   * A file of the host that stays for the next boot; made if it does not exist. Default: a temporary file.
   */
  readonly image?: string;
}

export interface VmOptions {
  readonly kernel: KernelSeries;
  /** Test files, relative to the repository. */
  readonly files: readonly string[];
  readonly disks?: readonly VmDisk[];
  /** Text that is added to the kernel's command line, such as `lockdown=integrity`. */
  readonly append?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /** Milliseconds from start to power off. */
  readonly deadlineMs: number;
  readonly memoryMiB?: number;
}

export interface VmResult {
  readonly release: string;
  /** Exit status of the test run in the guest; undefined if it did not complete. */
  readonly status: number | undefined;
  readonly tests: readonly TestRecord[];
  /** The output of the tests, without the records. */
  readonly output: string;
  /** The output of kernel and init on the serial line. */
  readonly console: string;
  /**
   * True if the guest's Node died of a defect of its own (an assertion in V8). The machine was then switched
   * off at once.
   */
  readonly runtimeDied: boolean;
  readonly seconds: number;
}

const driversOf: Readonly<Record<VmDisk['bus'], readonly string[]>> = {
  virtio: ['virtio_blk'],
  scsi: ['virtio_scsi', 'sd_mod'],
  nvme: ['nvme'],
  'nvme-multipath': ['nvme'],
};

const repository = join(import.meta.dirname, '../..');

/** Boots, runs the tests, waits for the power-off or the deadline, and leaves nothing behind. */
export async function runInVm(options: VmOptions): Promise<VmResult> {
  const kernel = await findKernel(options.kernel);
  const work = await mkdtemp(join(tmpdir(), 'dattod-vm-'));
  const started = performance.now();
  try {
    const initramfs = join(work, 'initramfs');
    await writeFile(initramfs, await buildInitramfs(kernel));
    const job = join(work, 'job');
    await mkdir(job);
    await writeFile(join(job, 'run'), jobScript(options));
    const disks = await makeDisks(work, options.disks ?? []);
    const serial = join(work, 'console');
    const output = join(job, 'output');
    await boot([...machine(kernel, initramfs, job, options), ...disks], serial, options.deadlineMs, () =>
      hasDied(text(output)),
    );
    const lines = text(output).split('\n');
    const status = text(join(job, 'status')).trim();
    return {
      release: kernel.release,
      status: status === '' ? undefined : Number(status),
      tests: lines
        .filter((line) => line.startsWith(recordMark))
        .map((line) => JSON.parse(line.slice(recordMark.length)) as TestRecord),
      output: lines.filter((line) => !line.startsWith(recordMark)).join('\n'),
      console: text(serial),
      runtimeDied: hasDied(text(output)),
      seconds: Math.round((performance.now() - started) / 1000),
    };
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Boots that `runSteadily` makes at most. */
export const mostBoots = 2;

/**
 * Like `runInVm`, but boots once more if V8 died in the guest, which the tested code cannot cause. `tell`
 * receives a message then. Takes at most as long as `mostBoots` deadlines.
 */
export async function runSteadily(options: VmOptions, tell: (line: string) => void): Promise<VmResult> {
  for (let boot = 1; ; boot++) {
    const result = await runInVm(options);
    if (!result.runtimeDied || boot === mostBoots) return result;
    const said = /Check failed.*/.exec(result.output)?.[0] ?? '';
    tell(`V8 died in the guest, which is booted again: ${said}`);
  }
}

function jobScript(options: VmOptions): string {
  const environment = Object.entries(options.environment ?? {}).map(
    ([name, value]) => `export ${name}=${quote(value)}`,
  );
  const command = [
    'scripts/node',
    // Node 24.21 sometimes crashes if WebAssembly (which strips the types) is compiled again while it runs,
    // or if V8's own threads meet in its list of compiled code.
    '--liftoff-only',
    '--single-threaded',
    '--disable-warning=ExperimentalWarning',
    '--test',
    '--test-concurrency=1',
    `--test-reporter=${join(repository, 'test/vm/report.ts')}`,
    ...options.files,
  ];
  const drivers = [...new Set((options.disks ?? []).flatMap((disk) => driversOf[disk.bus]))];
  const modules = drivers.length === 0 ? [] : [`modprobe -a ${drivers.join(' ')}`];
  return [`cd ${quote(repository)}`, ...modules, ...environment, command.map(quote).join(' '), ''].join('\n');
}

function machine(kernel: Kernel, initramfs: string, job: string, options: VmOptions): string[] {
  const append = [
    'console=ttyS0 quiet panic=-1 mitigations=off',
    `vm.repo=${repository}`,
    `vm.modules=${join(kernel.root, 'lib/modules')}`,
    options.append ?? '',
  ].join(' ');
  return [
    ['-accel', 'tcg,thread=multi,tb-size=512', '-cpu', 'max,pku=off', '-smp', '2'],
    ['-m', String(options.memoryMiB ?? 3072)],
    ['-nodefaults', '-no-user-config', '-display', 'none', '-no-reboot', '-serial', 'stdio'],
    ['-kernel', kernel.image, '-initrd', initramfs, '-append', append],
    ['-fsdev', 'local,id=root,path=/,security_model=none,readonly=on,multidevs=remap'],
    ['-device', 'virtio-9p-pci,fsdev=root,mount_tag=root'],
    ['-fsdev', `local,id=job,path=${job},security_model=none`],
    ['-device', 'virtio-9p-pci,fsdev=job,mount_tag=job'],
  ].flat();
}

async function makeDisks(work: string, disks: readonly VmDisk[]): Promise<string[]> {
  const args: string[] = [];
  if (disks.some((disk) => disk.bus === 'scsi')) args.push('-device', 'virtio-scsi-pci,id=scsi');
  for (const [number, disk] of disks.entries()) {
    const image = disk.image ?? join(work, `disk${number}`);
    if (!existsSync(image)) {
      const file = await open(image, 'wx');
      await file.truncate(disk.size ?? GiB);
      await file.close();
    }
    const drive = `disk${number}`;
    args.push(
      '-drive',
      `file=${image},if=none,id=${drive},format=raw,discard=unmap,detect-zeroes=off,cache=unsafe,aio=threads`,
    );
    const devices: Record<VmDisk['bus'], string[]> = {
      virtio: [`virtio-blk-pci,drive=${drive}`],
      scsi: [`scsi-hd,bus=scsi.0,drive=${drive}`],
      nvme: [`nvme,serial=${drive},drive=${drive}`],
      'nvme-multipath': [
        `nvme-subsys,id=sub${number},nqn=sub${number}`,
        `nvme,serial=mp${number},subsys=sub${number}`,
        `nvme,serial=mp${number},subsys=sub${number}`,
        `nvme-ns,drive=${drive},nsid=1,shared=on`,
      ],
    };
    for (const device of devices[disk.bus]) args.push('-device', device);
  }
  return args;
}

/** Milliseconds between two checks whether the guest still makes progress. */
const lookMs = 5_000;

/**
 * Returns true if V8 has died. V8 prints this line before it ends the process; under emulation it may hang
 * while it prints the place.
 */
function hasDied(output: string): boolean {
  return /^# Fatal error in .*\n# Check failed: /m.test(output);
}

function boot(
  args: readonly string[],
  serial: string,
  deadlineMs: number,
  isOver: () => boolean,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const log = createWriteStream(serial);
    const child = spawn('qemu-system-x86_64', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    const kill = (): void => void child.kill('SIGKILL');
    const timer = setTimeout(() => {
      log.write(`\nhost: killed after ${Math.round(deadlineMs / 1000)} s\n`);
      kill();
    }, deadlineMs);
    const look = setInterval(() => {
      if (isOver()) kill();
    }, lookMs);
    process.once('exit', kill);
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    child.on('error', reject);
    child.on('close', () => {
      clearTimeout(timer);
      clearInterval(look);
      process.off('exit', kill);
      log.end(resolve);
    });
  });
}

function text(path: string): string {
  return existsSync(path) ? readFileSync(path, 'latin1') : '';
}

function quote(word: string): string {
  return `'${word.replaceAll("'", String.raw`'\''`)}'`;
}
