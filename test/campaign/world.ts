/**
 * The machine of random histories: two devices, a daemon with its tracker, and five targets (image files,
 * images that dattosrv and nbdkit serve, a vault, a copy of that vault). Steps change it, and the judge
 * compares a backup with the device.
 *
 * Many histories run on one machine. Each has its own targets, which are empty at the beginning. Everything
 * is in memory, and is removed at the end.
 */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { KiB, MiB } from '../../src/base/bytes.ts';
import type { ErrorDocument } from '../../src/base/errors.ts';
import type { JobOptionsDocument } from '../../src/api/job-options.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { post } from '../helpers/post.ts';
import { ask, assertNothingLeft, childrenOf, commandOf, scratchFor, scriptIn } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { daemonPaths, type DaemonPaths, startDaemon, type TestDaemon, waitFor } from '../helpers/daemon.ts';
import { type Dattosrv, startDattosrv } from '../helpers/dattosrv.ts';
import { umount } from '../helpers/loop.ts';
import { exec } from '../helpers/exec.ts';
import type { NbdServerProcess } from '../helpers/nbd-process.ts';
import { startNbdkit } from '../helpers/nbdkit.ts';
import { bundledPrograms } from './built.ts';
import { copyArguments, Disk, type DiskName } from './disk.ts';
import { VaultPlace } from './vault-place.ts';

export type ImageTarget = 'file' | 'dattosrv' | 'nbdkit';
export type VaultTarget = 'vault' | 'copy';
export type TargetName = ImageTarget | VaultTarget;
export type Kind = 'full' | 'incremental' | 'differential';
/** Small separate disks, which a step may fill. */
export type Room = 'state' | 'images' | 'vaults';
/** The moment of an event in a job: right after its start, or in one of its hooks. */
export type Moment = 'start' | 'pre-freeze' | 'frozen' | 'post-thaw';

const roomBytes: Readonly<Record<Room, number>> = {
  state: 128 * MiB,
  images: 512 * MiB,
  vaults: 512 * MiB,
};

/** A device and its target in a job. */
export interface Pair {
  readonly disk: DiskName;
  readonly target: TargetName;
}

export interface BackupRequest {
  readonly kind: Kind;
  /** The pairs have different disks. */
  readonly pairs: readonly Pair[];
  readonly options: JobOptionsDocument;
}

/** An action of a step while the job runs. */
export interface During {
  readonly at: Moment;
  /** May be called after the end of the job if the job never reaches that moment. */
  readonly run: (job: string) => Promise<void>;
  /** Milliseconds after the moment. */
  readonly delay?: number;
}

/** A copy of a device, and the size of the device at that moment, in bytes. */
export interface Reference {
  readonly path: string;
  readonly size: number;
}

/** The end of a job: its last status, or the error that refused it. */
export interface Outcome {
  readonly refused?: ErrorDocument;
  readonly status?: JobStatus;
  /** For each disk, copies of it at moments that the image may show. */
  readonly references: ReadonlyMap<DiskName, readonly Reference[]>;
  /** The image files of the job; none for a vault. The device may have another size since. */
  readonly images: ReadonlyMap<DiskName, string>;
}

export class World {
  readonly scratch: string;
  readonly disks: Readonly<Record<DiskName, Disk>>;
  readonly #t: EndingTest;
  readonly #lib: string;
  readonly #paths: DaemonPaths;
  readonly #hooks: Readonly<Record<Exclude<Moment, 'start'>, string>>;
  #daemon: TestDaemon;
  #dattosrv: Dattosrv;
  #nbdkit: NbdServerProcess;
  #history = 0;
  #vault: VaultPlace | undefined;
  #copy: VaultPlace | undefined;
  /** Kept copies of images, by their path. */
  readonly keptImages = new Set<string>();
  stateKept = false;
  machineKept = false;
  /** The pairs that were backed up in this history, as `disk target`. */
  readonly backedUp = new Set<string>();

  private constructor(
    t: EndingTest,
    parts: {
      scratch: string;
      disks: World['disks'];
      lib: string;
      paths: DaemonPaths;
      hooks: World['hooks'];
      servers: [Dattosrv, NbdServerProcess];
      daemon: TestDaemon;
    },
  ) {
    this.#t = t;
    this.scratch = parts.scratch;
    this.disks = parts.disks;
    this.#lib = parts.lib;
    this.#paths = parts.paths;
    this.#hooks = parts.hooks;
    [this.#dattosrv, this.#nbdkit] = parts.servers;
    this.#daemon = parts.daemon;
    atEnd(t, () => this.#nbdkit.stop());
    atEnd(t, async () => {
      await this.#vault?.close();
      await this.#copy?.close();
      await this.#daemon.end();
      rmSync(this.#paths.pinDirectory, { recursive: true, force: true });
    });
  }

  static async make(t: EndingTest): Promise<World> {
    const scratch = scratchFor(t, { memory: true });
    const paths = daemonPaths();
    atEnd(t, () => rmSync(paths.directory, { recursive: true, force: true }));
    for (const [room, size] of Object.entries(roomBytes)) {
      const place = room === 'state' ? paths.directory : join(scratch, room);
      mkdirSync(place, { recursive: true });
      await exec('mount', ['-t', 'tmpfs', '-o', `size=${size}`, 'tmpfs', place]);
      atEnd(t, () => umount(place));
    }
    const lib = await bundledPrograms(scratch);
    const disks = { a: await Disk.make(t, 'a', scratch), b: await Disk.make(t, 'b', scratch) };
    const images = join(scratch, 'images');
    for (const name of ['dattosrv', 'nbdkit', 'file']) mkdirSync(join(images, name));
    const dattosrv = await startDattosrv(t, ['--create'], {
      directory: join(images, 'dattosrv'),
      entry: join(lib, 'dattosrv.js'),
    });
    const nbdkit = await startNbdkit(nbdkitParameters(scratch));
    const daemon = await startDaemon({ paths, tracking: true, entry: join(lib, 'dattod.js') });
    const hooks = await makeHooks(scratch, Object.values(disks));
    return new World(t, { scratch, disks, lib, paths, hooks, servers: [dattosrv, nbdkit], daemon });
  }

  get hooks(): Readonly<Record<Exclude<Moment, 'start'>, string>> {
    return this.#hooks;
  }

  get runDirectory(): string {
    return this.#daemon.runDirectory;
  }

  get vault(): VaultPlace {
    if (this.#vault === undefined) throw new Error('no history has begun');
    return this.#vault;
  }

  get copy(): VaultPlace | undefined {
    return this.#copy;
  }

  vaultAt(target: VaultTarget): VaultPlace {
    return (target === 'copy' ? this.#copy : undefined) ?? this.vault;
  }

  // Methods for one history.

  async beginHistory(): Promise<void> {
    this.#history++;
    for (const disk of Object.values(this.disks)) await disk.clear();
    const directory = join(this.scratch, 'vaults', `vault-${this.#history}`);
    const { stateDirectory } = this.#daemon;
    this.#vault = await VaultPlace.make({ directory, stateDirectory, scratch: this.scratch });
  }

  async endHistory(): Promise<void> {
    for (const disk of Object.values(this.disks)) await disk.unmount();
    await this.#vault?.close();
    await this.#copy?.close();
    this.#vault = this.#copy = undefined;
    for (const name of ['dattosrv', 'nbdkit', 'file']) {
      const place = join(this.scratch, 'images', name);
      for (const image of readdirSync(place)) rmSync(join(place, image));
    }
    for (const place of [this.#keptState, this.#keptMachine]) rmSync(place, { recursive: true, force: true });
    this.keptImages.clear();
    this.backedUp.clear();
    this.stateKept = this.machineKept = false;
  }

  /** Asserts that jobs left no process, no open device, no frozen filesystem and no file behind. */
  async assertNothingLeft(): Promise<void> {
    const disks = Object.values(this.disks);
    rmSync(join(this.runDirectory, 'mounts'), { recursive: true, force: true });
    await assertNothingLeft(this.#daemon, {
      devices: disks.map(({ device }) => device),
      mountPoints: disks.filter(({ mounted }) => mounted === 'rw').map(({ mountPoint }) => mountPoint),
    });
  }

  // Methods for targets.

  imageOf(target: ImageTarget, disk: DiskName): string {
    const { size } = this.disks[disk];
    return join(this.scratch, 'images', target, `${this.#history}-${disk}-${size}`);
  }

  #addressOf(target: TargetName, disk: DiskName): string {
    if (target === 'vault' || target === 'copy') return this.vaultAt(target).target;
    const image = this.imageOf(target, disk);
    if (target === 'file') return image;
    const { size } = this.disks[disk];
    if (target === 'dattosrv') return this.#dattosrv.uriOf(`${this.#history}-${disk}-${size}@${size}`);
    if (!existsSync(image)) {
      writeFileSync(image, '');
      truncateSync(image, size);
    }
    return this.#nbdkit.uri.replace('?', `${this.#history}-${disk}-${size}?`);
  }

  /** Copies the image as it is now. Returns false if there is none. */
  async keepImage(target: ImageTarget, disk: DiskName): Promise<boolean> {
    const image = this.imageOf(target, disk);
    if (!existsSync(image)) return false;
    await exec('cp', ['--sparse=always', image, `${image}.kept`]);
    this.keptImages.add(image);
    return true;
  }

  async putBackImage(target: ImageTarget, disk: DiskName): Promise<void> {
    const image = this.imageOf(target, disk);
    if (this.keptImages.has(image)) await exec('cp', ['--sparse=always', `${image}.kept`, image]);
  }

  /** Kills the server, calls `between`, and starts it again at the same address. */
  async restartServer(target: 'dattosrv' | 'nbdkit', between?: () => Promise<void>): Promise<void> {
    if (target === 'dattosrv') {
      const { directory, socket } = this.#dattosrv;
      await this.#dattosrv.kill();
      await between?.();
      this.#dattosrv = await startDattosrv(this.#t, ['--create'], {
        ...{ directory, socket },
        entry: join(this.#lib, 'dattosrv.js'),
      });
      return;
    }
    const { socket, directory } = this.#nbdkit;
    atEnd(this.#t, () => rmSync(directory, { recursive: true, force: true }));
    await this.#nbdkit.kill();
    // nbdkit refuses a socket that exists.
    rmSync(socket!);
    await between?.();
    this.#nbdkit = await startNbdkit(nbdkitParameters(this.scratch), { socket: socket! });
  }

  /** Stops the server from answering for a moment. */
  async stopServerFor(target: 'dattosrv' | 'nbdkit', ms: number): Promise<void> {
    const { pid } = target === 'dattosrv' ? this.#dattosrv : this.#nbdkit;
    process.kill(pid, 'SIGSTOP');
    try {
      await this.wait(ms);
    } finally {
      process.kill(pid, 'SIGCONT');
    }
  }

  /** Makes half of the writes to nbdkit fail from now on, or none. */
  setWriteErrors(on: boolean): void {
    const mark = errorMark(this.scratch);
    if (on) writeFileSync(mark, '');
    else rmSync(mark, { force: true });
  }

  async copyVault(): Promise<void> {
    this.#copy ??= await this.vault.copiedTo(join(this.scratch, 'vaults', `copy-${this.#history}`));
  }

  /** Leaves this number of bytes free in a room, or all. */
  async leaveRoom(room: Room, bytes: number | undefined): Promise<void> {
    const place = room === 'state' ? this.#paths.directory : join(this.scratch, room);
    let size = roomBytes[room];
    if (bytes !== undefined) {
      const { stdout } = await exec('df', ['--output=used', '--block-size=1', place]);
      size = Number(stdout.trim().split('\n').at(-1)) + Math.max(bytes, 4 * KiB);
    }
    await exec('mount', ['-o', `remount,size=${size}`, place]);
  }

  // Methods for the daemon.

  /** Starts a job, calls `during` while it runs, and resolves when it has ended or was refused. */
  async backUp({ kind, pairs, options }: BackupRequest, during?: During): Promise<Outcome> {
    const chosen = pairs.map(({ disk }) => this.disks[disk]);
    for (const disk of Object.values(this.disks))
      for (const when of ['frozen', 'before', 'after']) rmSync(this.#reference(disk, when), { force: true });
    rmSync(join(this.scratch, 'reached'), { force: true });
    if (during !== undefined) {
      writeFileSync(join(this.scratch, 'wait-at'), `${during.at}\n`);
      for (const disk of chosen) if (disk.mounted !== 'rw') await disk.copy(this.#reference(disk, 'before'));
    } else rmSync(join(this.scratch, 'wait-at'), { force: true });
    const sizesBefore = new Map(chosen.map(({ name, size }) => [name, size]));
    const images = new Map<DiskName, string>();
    for (const { disk, target } of pairs)
      if (target !== 'vault' && target !== 'copy') images.set(disk, this.imageOf(target, disk));
    const answer = await post<JobStatus>(this.#daemon.socket, '/v1/jobs', {
      kind,
      devices: pairs.map(({ disk, target }) => ({
        device: this.disks[disk].device,
        target: this.#addressOf(target, disk),
      })),
      options: {
        ...{ max_freeze_ms: 20_000, frozen_hook: this.#hooks.frozen },
        ...(during === undefined
          ? {}
          : { pre_freeze_hook: this.#hooks['pre-freeze'], post_thaw_hook: this.#hooks['post-thaw'] }),
        ...options,
      },
    });
    if ('refused' in answer) return { refused: answer.refused, references: new Map(), images };
    const { uuid } = answer.body;
    try {
      if (during !== undefined) {
        if (during.at !== 'start') await this.#reached(uuid);
        if (during.delay !== undefined) await this.wait(during.delay);
        // The waiting hook delays the end of its job. If the action waits for that end, the hook is released
        // after 2 s.
        const running = during.run(uuid);
        running.catch(() => undefined);
        await Promise.race([running, this.wait(2000)]);
        rmSync(join(this.scratch, 'wait-at'), { force: true });
        await running;
      }
    } finally {
      rmSync(join(this.scratch, 'wait-at'), { force: true });
    }
    const status = await this.#ended(uuid);
    const references = new Map<DiskName, Reference[]>();
    for (const disk of chosen) {
      const frozen = this.#reference(disk, 'frozen');
      const [after, before] = [this.#reference(disk, 'after'), this.#reference(disk, 'before')];
      if (existsSync(frozen)) {
        const size = Number(readFileSync(join(this.scratch, `size-${disk.name}`), 'utf8'));
        references.set(disk.name, [{ path: frozen, size }]);
      } else if (status.state === 'SUCCEEDED') {
        await disk.copy(after);
        const copies = [
          { path: after, size: disk.size },
          { path: before, size: sizesBefore.get(disk.name)! },
        ];
        references.set(
          disk.name,
          copies.filter(({ path }) => existsSync(path)),
        );
      }
    }
    return { status, references, images };
  }

  #reference({ name }: Disk, when: string): string {
    return join(this.scratch, `reference-${name}-${when}`);
  }

  /** Waits until a hook of the job waits, or until the job has ended without it. */
  async #reached(uuid: string): Promise<void> {
    await waitFor(`the hook of job ${uuid}`, 60_000, async () => {
      if (existsSync(join(this.scratch, 'reached'))) return true;
      return (await ask<JobStatus>(this.#daemon.socket, `/v1/jobs/${uuid}`)).finished_at !== null;
    });
  }

  async #ended(uuid: string): Promise<JobStatus> {
    let status: JobStatus | undefined;
    await waitFor(`the end of job ${uuid}`, 120_000, async () => {
      status = await ask<JobStatus>(this.#daemon.socket, `/v1/jobs/${uuid}`);
      return status.finished_at !== null;
    });
    return status!;
  }

  /**
   * Starts a job by a name of a device instead of its path, and cancels it. Returns the error if it was
   * refused.
   */
  async tryBackup(device: string, target: string): Promise<ErrorDocument | undefined> {
    const devices = [{ device, target }];
    const answer = await post<JobStatus>(this.#daemon.socket, '/v1/jobs', { kind: 'full', devices });
    if ('refused' in answer) return answer.refused;
    const { error } = await this.#ended(answer.body.uuid);
    return error ?? undefined;
  }

  async control(job: string, what: 'stop' | 'pause' | 'resume'): Promise<void> {
    await post(this.#daemon.socket, `/v1/jobs/${job}/${what}`, {});
  }

  /** Kills the process that freezes and thaws. Returns false if there is none. */
  killGuard(): boolean {
    const guard = childrenOf(this.#daemon.pid).find((pid) => commandOf(pid).includes('guard-main'));
    if (guard !== undefined) process.kill(guard, 'SIGKILL');
    return guard !== undefined;
  }

  /**
   * Ends the daemon by SIGKILL or in an orderly way, and starts a new one with the same paths. `between` runs
   * in the meantime.
   */
  async restartDaemon(
    how: 'kill' | 'end',
    { between, repeats = false }: { between?: () => Promise<void> | void; repeats?: boolean } = {},
  ): Promise<void> {
    await (how === 'kill' ? this.#daemon.kill() : this.#daemon.end());
    await between?.();
    const preload = new URL('repeat-numbers.ts', import.meta.url).href;
    this.#daemon = await startDaemon({
      paths: this.#paths,
      tracking: true,
      entry: join(this.#lib, 'dattod.js'),
      ...(repeats ? { environment: { NODE_OPTIONS: `--import=${preload}` } } : {}),
    });
  }

  get #keptState(): string {
    return join(this.scratch, 'state-kept');
  }

  async keepState(): Promise<void> {
    await this.restartDaemon('end', {
      between: () => {
        replaceTree(this.#daemon.stateDirectory, this.#keptState);
        this.stateKept = true;
      },
    });
  }

  async putBackState(): Promise<void> {
    await this.restartDaemon('end', {
      between: () => replaceTree(this.#keptState, this.#daemon.stateDirectory),
    });
  }

  get #keptMachine(): string {
    return join(this.scratch, 'machine-kept');
  }

  /** Keeps the state directory and the content of the devices, like a snapshot of a virtual machine. */
  async keepMachine(): Promise<void> {
    await this.restartDaemon('end', {
      between: async () => {
        replaceTree(this.#daemon.stateDirectory, join(this.#keptMachine, 'state'));
        for (const disk of Object.values(this.disks)) {
          await disk.unmount();
          await disk.copy(join(this.#keptMachine, disk.name));
        }
      },
    });
    this.machineKept = true;
  }

  /** Puts the machine back to its kept state, but not the targets. The random numbers repeat from now on. */
  async revertMachine(): Promise<void> {
    await this.restartDaemon('kill', {
      repeats: true,
      between: async () => {
        replaceTree(join(this.#keptMachine, 'state'), this.#daemon.stateDirectory);
        for (const disk of Object.values(this.disks)) {
          await disk.unmount();
          await disk.putBack(join(this.#keptMachine, disk.name));
        }
      },
    });
  }

  wait(ms: number): Promise<void> {
    return new Promise((resolve) => setTimeout(resolve, ms));
  }
}

function replaceTree(from: string, to: string): void {
  rmSync(to, { recursive: true, force: true });
  cpSync(from, to, { recursive: true, preserveTimestamps: true });
}

function errorMark(scratch: string): string {
  return join(scratch, 'write-errors');
}

function nbdkitParameters(scratch: string): string[] {
  return [
    ...['--filter=error', 'file', `dir=${join(scratch, 'images', 'nbdkit')}`],
    ...['error=EIO', 'error-pwrite-rate=0.5', `error-pwrite-file=${errorMark(scratch)}`],
  ];
}

/**
 * Makes the hooks of a job, which wait until the test has done something. Each waits while `wait-at` names
 * it. The hook inside the freeze copies the devices first.
 */
async function makeHooks(
  scratch: string,
  disks: readonly Disk[],
): Promise<Record<Exclude<Moment, 'start'>, string>> {
  const waitAt = (moment: Moment): string[] => [
    `[ "$(cat ${scratch}/wait-at 2>/dev/null)" = ${moment} ] || exit 0`,
    `: > ${scratch}/reached`,
    `for i in $(seq 500); do [ -e ${scratch}/wait-at ] || exit 0; sleep 0.02; done`,
  ];
  const copies = disks.map(
    ({ device, name }) =>
      `case " $DATTO_DEVICES " in *" ${device} "*) blockdev --getsize64 ${device} > ${scratch}/size-${name}; ` +
      `dd ${copyArguments(device, `${scratch}/reference-${name}-frozen`).join(' ')};; esac`,
  );
  return {
    'pre-freeze': await scriptIn(scratch, 'pre-freeze', waitAt('pre-freeze')),
    frozen: await scriptIn(scratch, 'frozen', [...copies, ...waitAt('frozen')]),
    'post-thaw': await scriptIn(scratch, 'post-thaw', waitAt('post-thaw')),
  };
}
