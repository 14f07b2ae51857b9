/**
 * Runs a long schedule of backups as quickly as possible. Each "minute" has an incremental of one device
 * under writes, to an image and to a vault in turn. Sometimes there are events of a real machine: a refused
 * start, a cancelled job, a verification. Each "hour" the log is rotated, old points are forgotten and
 * pruned, and a point is mounted. The daemon's use of its machine is measured all the time, and must not grow
 * (growth.ts).
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { MiB } from '../../src/base/bytes.ts';
import type { ErrorDocument } from '../../src/base/errors.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { History } from '../../src/daemon/history.ts';
import { daemonFor, scratchFor, untilEnded } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { daemonPaths, runProgram, type TestDaemon, waitFor } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertWhole } from '../helpers/image-proof.ts';
import { makeLoop } from '../helpers/loop.ts';
import { post } from '../helpers/post.ts';
import { vaultFor } from '../helpers/vault.ts';
import type { Sample } from './growth.ts';
import { measure, type Places } from './measure.ts';

export interface SoakOptions {
  /** Number of simulated minutes, with one backup each. */
  readonly minutes: number;
  /** Ends earlier after this number of milliseconds. */
  readonly limitMs: number;
  /** Simulated minutes between two samples. */
  readonly every: number;
  /** Simulated minutes between two rounds of rotating the log, forgetting, pruning and mounting. */
  readonly hour: number;
  /** True runs the built dattod and dattocli, false those of the sources. */
  readonly built: boolean;
  readonly log: (line: string) => void;
}

export interface SoakResult {
  readonly samples: readonly Sample[];
  /** Simulated minutes that were played. */
  readonly minutes: number;
  readonly counts: Readonly<Record<string, number>>;
}

export async function runSoak(t: EndingTest, options: SoakOptions): Promise<SoakResult> {
  const soak = await Soak.begin(t, options);
  return soak.run();
}

/** Adds as many jobs as are kept, so that the history has its largest size from the beginning. */
function fillHistory(stateDirectory: string): void {
  mkdirSync(stateDirectory, { recursive: true, mode: 0o700 });
  const history = new History(join(stateDirectory, 'history.sqlite'));
  history.hold();
  for (let job = 0; job < 1000; job++)
    history.put({
      ...{ uuid: randomUUID(), kind: 'incremental', state: 'SUCCEEDED', phase: 'finishing', paused: false },
      ...{ created_at: new Date(job).toISOString(), finished_at: new Date(job + 1).toISOString() },
      ...{ tracker: 'ebpf', rate: 0, seconds_left: null, warnings: [], devices: [] },
      // As long as the status of a real job with one device.
      error: { code: 'INTERNAL', message: '.'.repeat(1400) },
    });
  history.release();
  history.close();
}

class Soak {
  readonly #options: SoakOptions;
  readonly #daemon: TestDaemon;
  readonly #places: Places;
  readonly #device: string;
  readonly #mountPoint: string;
  readonly #image: string;
  readonly #vault: string;
  readonly #counts: Record<string, number> = {};

  private constructor(
    options: SoakOptions,
    daemon: TestDaemon,
    places: Places,
    device: { readonly path: string; readonly mountPoint: string },
    vault: string,
  ) {
    this.#options = options;
    this.#daemon = daemon;
    this.#places = places;
    this.#device = device.path;
    this.#mountPoint = device.mountPoint;
    this.#image = join(places.scratch, 'image');
    this.#vault = vault;
  }

  static async begin(t: EndingTest, options: SoakOptions): Promise<Soak> {
    const scratch = scratchFor(t, { memory: true });
    const temporary = join(scratch, 'tmp');
    mkdirSync(temporary);
    const disk = await makeLoop(t, { size: 48 * MiB, filesystem: 'ext4', mount: true, directory: scratch });
    await fillWithFiles(disk.mountPoint!, 4 * MiB);
    const paths = daemonPaths();
    fillHistory(paths.stateDirectory);
    const daemon = await daemonFor(t, {
      paths,
      tracking: true,
      ...(options.built ? { entry: 'build/dattod' } : {}),
      environment: { TMPDIR: temporary },
    });
    const vault = await vaultFor(t, daemon.stateDirectory);
    const places = { vault: vault.directory, temporary, scratch };
    const device = { path: disk.device, mountPoint: disk.mountPoint! };
    const soak = new Soak(options, daemon, places, device, vault.target);
    atEnd(t, () => exec('umount', [soak.#mountedPoint], { allow: [1, 32] }).then(() => undefined));
    return soak;
  }

  get #mountedPoint(): string {
    return join(this.#places.scratch, 'point');
  }

  async run(): Promise<SoakResult> {
    const { minutes, limitMs, every, hour, log } = this.#options;
    const samples: Sample[] = [];
    const started = performance.now();
    for (const target of [this.#image, this.#vault]) await this.#well('full', target);
    let minute = 0;
    while (minute < minutes && performance.now() - started < limitMs) {
      minute++;
      await this.#minute(minute);
      if (minute % hour === 0) await this.#hour();
      if (minute % every !== 0) continue;
      const sample = await this.#sample();
      samples.push(sample);
      log(`${minute}: ${JSON.stringify(sample)}`);
    }
    await this.#well('incremental', this.#image);
    await assertWhole('ext4', this.#image, 'frozen');
    await this.#cli('vault', 'check', '--vault', this.#vault);
    assert.doesNotMatch(this.#daemon.log(), /"msg":"defect"/);
    return { samples, minutes: minute, counts: this.#counts };
  }

  /** Takes a sample when the threads of the last job have ended. */
  async #sample(): Promise<Sample> {
    let sample = measure(this.#daemon, this.#places);
    await waitFor('two equal samples', 20_000, () => {
      const before = sample;
      sample = measure(this.#daemon, this.#places);
      return sample['threads'] === before['threads'] && sample['descriptors'] === before['descriptors'];
    });
    return sample;
  }

  async #minute(minute: number): Promise<void> {
    await this.#write(minute);
    const target = minute % 2 === 0 ? this.#image : this.#vault;
    if (minute % 20 === 7) await this.#refused();
    if (minute % 25 === 12) await this.#cancelled(target);
    if (minute % 60 === 31) await this.#well('verify', this.#image);
    await this.#well('incremental', target);
  }

  /** Writes some blocks of some files, makes a new file and deletes another. */
  async #write(minute: number): Promise<void> {
    const name = (number: number): string => join(this.#mountPoint, `soak-${number % 16}`);
    rmSync(name(minute + 1), { force: true });
    await exec('dd', [
      ...['if=/dev/urandom', `of=${name(minute)}`, 'bs=4k', `seek=${minute % 8}`],
      ...[`count=${1 + (minute % 12)}`, 'conv=notrunc,fsync', 'status=none'],
    ]);
  }

  async #well(kind: string, target: string): Promise<void> {
    const { status, refused } = await this.#start(kind, target);
    assert.equal(refused, undefined, JSON.stringify(refused));
    const ended = await untilEnded(this.#daemon, status!.uuid);
    assert.deepEqual([ended.state, ended.error, ended.warnings], ['SUCCEEDED', null, []]);
    const device = ended.devices[0]!;
    if (kind === 'incremental') assert.equal(device.kind, kind, device.fallback_reason ?? '');
    this.#count(`${kind} ${target === this.#image ? 'image' : 'vault'}`);
  }

  async #refused(): Promise<void> {
    const { refused } = await this.#start('incremental', join(this.#mountPoint, 'no/such/directory/image'));
    assert.ok(refused !== undefined);
    this.#count('refused');
  }

  async #cancelled(target: string): Promise<void> {
    const { status } = await this.#start('differential', target, { rate: 1_000_000 });
    await post(this.#daemon.socket, `/v1/jobs/${status!.uuid}/stop`);
    const ended = await untilEnded(this.#daemon, status!.uuid);
    assert.ok(ended.state === 'CANCELLED' || ended.state === 'SUCCEEDED', ended.state);
    this.#count(`stopped: ${ended.state}`);
  }

  async #hour(): Promise<void> {
    const { logFile } = this.#daemon;
    renameSync(logFile, `${logFile}.1`);
    this.#daemon.child.kill('SIGHUP');
    await waitFor('the log is reopened', 5000, () => this.#daemon.log().includes('the log was reopened'));
    const vault = ['--vault', this.#vault];
    await this.#cli('forget', '--keep-last', '10', '--grace', '0', ...vault);
    await this.#cli('vault', 'prune', ...vault);
    const places = ['--run-dir', this.#daemon.runDirectory];
    await this.#cli('mount', 'latest', this.#mountedPoint, ...vault, ...places);
    assert.ok(readdirSync(this.#mountedPoint).some((name) => name.startsWith('soak-')));
    await this.#runCli('umount', this.#mountedPoint, ...places);
    this.#count('hours');
  }

  #cli(...args: readonly string[]): Promise<void> {
    return this.#runCli(...args, '--state-dir', this.#daemon.stateDirectory);
  }

  async #runCli(...args: readonly string[]): Promise<void> {
    const environment = { TMPDIR: this.#places.temporary };
    const entry = this.#options.built ? 'build/lib/dattocli.js' : 'src/bin/dattocli.ts';
    const { code, stdout, stderr } = await runProgram(entry, args, { environment });
    assert.equal(code, 0, `dattocli ${args.join(' ')}: ${stdout}${stderr}`);
  }

  async #start(
    kind: string,
    target: string,
    options: object = {},
  ): Promise<{ status?: JobStatus; refused?: ErrorDocument }> {
    const answer = await post<JobStatus>(this.#daemon.socket, '/v1/jobs', {
      ...{ kind, options, devices: [{ device: this.#device, target }] },
    });
    return answer.refused === undefined ? { status: answer.body } : answer;
  }

  #count(what: string): void {
    this.#counts[what] = (this.#counts[what] ?? 0) + 1;
  }
}
