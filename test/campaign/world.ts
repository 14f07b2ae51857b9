/**
 * The machine of a random history: a device with a filesystem, a daemon, and three targets (an image file, an image that
 * dattosrv serves, a vault). Operations change it; `judge.ts` says whether a backup holds what the device held. All paths
 * are scratch folders, and everything is removed at the end.
 */
import { cpSync, existsSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MiB } from '../../src/base/bytes.ts';
import type { ErrorDocument, JobOptionsDocument, JobStatus } from '../../src/daemon/documents.ts';
import { ask, scratchFor, scriptIn } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { runProgram, startDaemon, type TestDaemon, waitFor } from '../helpers/daemon.ts';
import { type Dattosrv, startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';
import { makeFilesystem, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { type TestDirectoryVault, vaultFor } from '../helpers/vault.ts';

export type TargetName = 'file' | 'server' | 'vault';
export type Kind = 'full' | 'incremental' | 'differential';
export type Filesystem = 'ext4' | 'xfs';
export type Mounted = 'rw' | 'ro' | 'no';

/** Bytes; XFS takes no less than 300 MiB. The image is sparse, on a tmpfs. */
export const deviceSize = 320 * MiB;

/** What came of a job: its last status, or the error that refused it. */
export type Outcome =
  { readonly refused: ErrorDocument } | { readonly refused?: never; readonly status: JobStatus };

export class World {
  readonly device: string;
  readonly mountPoint: string;
  readonly scratch: string;
  /** A copy of the device that the last backup of a mounted device made inside its freeze. */
  readonly reference: string;
  readonly vault: TestDirectoryVault;
  readonly #t: EndingTest;
  readonly #hook: string;
  #daemon: TestDaemon;
  #server: Dattosrv;
  /** Names the images of one history. */
  #history = 0;
  filesystem: Filesystem = 'ext4';
  mounted: Mounted = 'no';

  private constructor(
    t: EndingTest,
    parts: Pick<World, 'device' | 'mountPoint' | 'scratch' | 'reference' | 'vault'> & {
      readonly hook: string;
      readonly daemon: TestDaemon;
      readonly server: Dattosrv;
    },
  ) {
    this.#t = t;
    this.device = parts.device;
    this.mountPoint = parts.mountPoint;
    this.scratch = parts.scratch;
    this.reference = parts.reference;
    this.vault = parts.vault;
    this.#hook = parts.hook;
    this.#daemon = parts.daemon;
    this.#server = parts.server;
    atEnd(t, async () => {
      await this.#daemon.stop();
    });
    atEnd(t, async () => {
      if (this.mounted !== 'no') await unmount(this.mountPoint);
    });
  }

  static async make(t: EndingTest): Promise<World> {
    const scratch = scratchFor(t, { memory: true });
    const disk = await makeLoop(t, { size: deviceSize, directory: scratch });
    const reference = join(scratch, 'reference');
    const hook = await scriptIn(scratchFor(t), 'copy-device', [
      `dd if=${disk.device} of=${reference} bs=1M iflag=direct conv=sparse status=none`,
    ]);
    const server = await startDattosrv(t, ['--create']);
    const daemon = await startDaemon({ tracking: true });
    const vault = await vaultFor(t, daemon.stateDirectory);
    const mountPoint = join(disk.directory, 'mnt');
    return new World(t, {
      ...{ device: disk.device, mountPoint, scratch, reference },
      ...{ vault, hook, daemon, server },
    });
  }

  /** A new filesystem, and targets that hold nothing. */
  async beginHistory(filesystem: Filesystem): Promise<void> {
    this.#history++;
    await this.unmount();
    await this.makeFilesystem(filesystem);
    await this.mount('rw');
  }

  async endHistory(): Promise<void> {
    await this.unmount();
    for (const target of ['file', 'server'] as const) {
      rmSync(this.imageOf(target), { force: true });
      rmSync(`${this.imageOf(target)}.kept`, { force: true });
    }
    rmSync(this.#keptState, { recursive: true, force: true });
  }

  imageOf(target: 'file' | 'server'): string {
    const directory = target === 'file' ? this.scratch : this.#server.directory;
    return join(directory, `image-${this.#history}`);
  }

  #addressOf(target: TargetName): string {
    if (target === 'vault') return this.vault.target;
    if (target === 'file') return this.imageOf('file');
    return this.#server.uriOf(`image-${this.#history}@${deviceSize}`);
  }

  async makeFilesystem(filesystem: Filesystem): Promise<void> {
    await makeFilesystem(this.device, filesystem);
    this.filesystem = filesystem;
  }

  async mount(how: 'rw' | 'ro'): Promise<void> {
    await mountDevice(this.device, this.mountPoint, how);
    this.mounted = how;
  }

  async remount(how: 'rw' | 'ro'): Promise<void> {
    await exec('mount', ['-o', `remount,${how}`, this.mountPoint]);
    this.mounted = how;
  }

  async unmount(): Promise<void> {
    if (this.mounted !== 'no') await unmount(this.mountPoint);
    this.mounted = 'no';
  }

  /** Starts a job and calls `during` while it runs; resolves when it has ended or was refused. */
  async backUp(
    kind: Kind,
    target: TargetName,
    options: JobOptionsDocument,
    during: (job: string) => Promise<void> = () => Promise.resolve(),
  ): Promise<Outcome> {
    rmSync(this.reference, { force: true });
    const answer = await post<JobStatus>(this.#daemon.socket, '/v1/jobs', {
      kind,
      devices: [{ device: this.device, target: this.#addressOf(target) }],
      options: {
        ...(this.mounted === 'rw' ? { frozen_hook: this.#hook, max_freeze_ms: 20_000 } : {}),
        ...options,
      },
    });
    if ('refused' in answer) return answer;
    const { uuid } = answer.body;
    await during(uuid);
    return { status: await this.#ended(uuid) };
  }

  async #ended(uuid: string): Promise<JobStatus> {
    let status: JobStatus | undefined;
    await waitFor(`the end of job ${uuid}`, 120_000, async () => {
      status = await ask<JobStatus>(this.#daemon.socket, `/v1/jobs/${uuid}`);
      return status.finished_at !== null;
    });
    return status!;
  }

  async cancel(job: string): Promise<void> {
    await post(this.#daemon.socket, `/v1/jobs/${job}/stop`, {});
  }

  /** SIGKILL, or an orderly end, and a new daemon with the same paths. `between` runs while none is there. */
  async restartDaemon(how: 'kill' | 'end', between: () => void = () => undefined): Promise<void> {
    await (how === 'kill' ? this.#daemon.kill() : this.#daemon.end());
    between();
    this.#daemon = await startDaemon({ paths: this.#daemon, tracking: true });
  }

  get #keptState(): string {
    return join(this.scratch, 'state-kept');
  }

  get stateIsKept(): boolean {
    return existsSync(this.#keptState);
  }

  async keepState(): Promise<void> {
    await this.restartDaemon('end', () => {
      rmSync(this.#keptState, { recursive: true, force: true });
      cpSync(this.#daemon.stateDirectory, this.#keptState, { recursive: true, preserveTimestamps: true });
    });
  }

  async putBackState(): Promise<void> {
    await this.restartDaemon('end', () => {
      rmSync(this.#daemon.stateDirectory, { recursive: true, force: true });
      cpSync(this.#keptState, this.#daemon.stateDirectory, { recursive: true, preserveTimestamps: true });
    });
  }

  /** Copies the image as it is now; false if there is none. */
  async keepImage(target: 'file' | 'server'): Promise<boolean> {
    const image = this.imageOf(target);
    if (!existsSync(image)) return false;
    await exec('cp', ['--sparse=always', image, `${image}.kept`]);
    return true;
  }

  async putBackImage(target: 'file' | 'server'): Promise<void> {
    const image = this.imageOf(target);
    await exec('cp', ['--sparse=always', `${image}.kept`, image]);
  }

  /** Kills dattosrv, calls `between`, and starts it again at the same address. */
  async restartServer(between: () => Promise<void>): Promise<void> {
    const { directory, socket } = this.#server;
    await this.#server.kill();
    await between();
    this.#server = await startDattosrv(this.#t, ['--create'], { directory, socket });
  }

  /** Writes files by a small script that `seed` decides: new, overwritten, cut short, deleted, with holes. */
  async writeFiles(seed: number, sync: boolean): Promise<void> {
    const script = join(this.scratch, 'write-files.sh');
    if (!existsSync(script)) writeFileSync(script, writeFilesScript, { mode: 0o700 });
    await exec('bash', [script, this.mountPoint, String(seed)]);
    if (sync) await exec('sync', ['--file-system', this.mountPoint]);
  }

  /** Writes 4 KiB of random bytes to blocks of the device itself, by an open without O_EXCL. */
  async writeRaw(blocks: readonly number[]): Promise<void> {
    for (const block of blocks)
      await exec('dd', [
        ...['if=/dev/urandom', `of=${this.device}`, 'bs=4096', 'count=1', `seek=${block}`],
        ...['conv=notrunc,fsync', 'status=none'],
      ]);
  }

  async trim(): Promise<void> {
    await exec('fstrim', [this.mountPoint], { allow: [1] });
  }

  /** After a disturbed job: the mount may be in between, where a remount failed. */
  async settle(): Promise<void> {
    if (this.mounted !== 'no') await this.remount(this.mounted);
  }

  wait(ms: number): Promise<void> {
    return sleep(ms);
  }

  /** Forgets all points but the newest, and prunes. */
  async forgetAndPrune(): Promise<void> {
    await this.#vaultCommand('forget', '--keep-last', '1', '--grace', '0');
    await this.#vaultCommand('vault', 'prune');
  }

  /** Throws if `vault check` finds anything. */
  async checkVault(): Promise<void> {
    await this.#vaultCommand('vault', 'check');
  }

  async #vaultCommand(...args: readonly string[]): Promise<void> {
    const places = ['--vault', this.vault.target, '--state-dir', this.#daemon.stateDirectory];
    const { code, stdout, stderr } = await runProgram('src/bin/dattocli.ts', [...args, ...places]);
    if (code !== 0) throw new Error(`dattocli ${args.join(' ')} exited with ${code}: ${stdout}${stderr}`);
  }
}

/** Bash, since it makes many small writes much quicker than a process for each. */
const writeFilesScript = `
cd "$1"; RANDOM=$2
for i in 1 2 3 4 5 6; do
  f=f$((RANDOM % 12))
  case $((RANDOM % 6)) in
  0) rm -f $f ;;
  1) truncate -s $((RANDOM % 64))k $f ;;
  2) mkdir -p d$((RANDOM % 3)); head -c $((RANDOM * 4)) /dev/urandom > d$((RANDOM % 3))/$f 2>/dev/null || : ;;
  3) dd if=/dev/urandom of=$f bs=4k count=$((1 + RANDOM % 8)) seek=$((RANDOM % 64)) conv=notrunc status=none ;;
  4) head -c $((RANDOM * 16)) /dev/urandom > $f ;;
  5) [ -e $f ] && fallocate --punch-hole --offset 4096 --length 8192 $f 2>/dev/null || : ;;
  esac
done
exit 0
`;

type Answer<T> = { readonly body: T } | { readonly refused: ErrorDocument };

function post<T>(socketPath: string, path: string, document: object): Promise<Answer<T>> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-type': 'application/json' };
    request({ socketPath, path, method: 'POST', headers, timeout: 120_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.once('end', () => {
        const value: unknown = JSON.parse(text);
        const good = response.statusCode !== undefined && response.statusCode < 300;
        resolve(good ? { body: value as T } : { refused: value as ErrorDocument });
      });
    })
      .once('error', reject)
      .end(JSON.stringify(document));
  });
}
