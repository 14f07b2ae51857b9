/**
 * Runs a history of backups: a full backup, then incrementals of a filesystem under constant writes. A seed
 * decides when jobs are cancelled and daemons are killed in between.
 *
 * Whenever an incremental succeeds, its image has to equal a copy of the device that was made inside its
 * freeze, bit for bit in all used blocks. The image also has to be whole without any recovery. Needs a kernel
 * on which eBPF tracking works.
 */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { MiB } from '../../src/base/bytes.ts';
import {
  assertNothingLeft,
  backUp,
  type KindFlag,
  scratchFor,
  scriptIn,
  startJob,
  untilEnded,
  untilFile,
} from './backup.ts';
import { atEnd, type EndingTest } from './cleanup.ts';
import { dattocli, startDaemon, type TestDaemon } from './daemon.ts';
import { startDattosrv } from './dattosrv.ts';
import { fillWithFiles } from './files.ts';
import { type FrozenProof, frozenProof } from './frozen-proof.ts';
import type { FilesystemName } from './image-proof.ts';
import { makeLoop } from './loop.ts';
import { seeded } from './random.ts';
import { startChurn, startStamper, type Writer } from './writers.ts';

export interface HistoryOptions {
  readonly type: FilesystemName;
  readonly seed: number;
  /** Number of incrementals that complete. */
  readonly incrementals: number;
}

export interface HistoryTest extends EndingTest {
  diagnostic(message: string): void;
}

const sizes: Readonly<Record<string, number>> = { ext4: 160 * MiB, xfs: 320 * MiB };

const interruptions = [
  'cancelled',
  'killed',
  'killed while frozen',
  'killed after the thaw',
  'killed while idle',
  'stopped and started',
] as const;
type Interruption = (typeof interruptions)[number];

export async function runHistory(
  t: HistoryTest,
  { type, seed, incrementals }: HistoryOptions,
): Promise<void> {
  const history = await History.begin(t, type, seed);
  await history.proven('--full');
  for (let number = 1; number <= incrementals; number++) {
    // Half of the incrementals come after one or two that did not complete.
    while (history.random() < 0.4) await history.interrupted();
    await history.proven('--incremental');
  }
  await history.end();
}

class History {
  readonly random: () => number;
  readonly #t: HistoryTest;
  readonly #type: FilesystemName;
  readonly #scratch: string;
  readonly #device: string;
  readonly #mountPoint: string;
  readonly #writers: readonly Writer[];
  readonly #target: readonly string[];
  readonly #proof: FrozenProof;
  #daemon: TestDaemon;
  readonly #counts = new Map<string, number>();
  readonly #frozen: number[] = [];

  private constructor(
    t: HistoryTest,
    type: FilesystemName,
    random: () => number,
    places: {
      scratch: string;
      device: string;
      mountPoint: string;
      target: readonly string[];
      proof: FrozenProof;
    },
    writers: readonly Writer[],
    daemon: TestDaemon,
  ) {
    this.#t = t;
    this.#type = type;
    this.random = random;
    this.#scratch = places.scratch;
    this.#device = places.device;
    this.#mountPoint = places.mountPoint;
    this.#target = places.target;
    this.#proof = places.proof;
    this.#writers = writers;
    this.#daemon = daemon;
    atEnd(t, async () => {
      await this.#daemon.stop();
    });
  }

  static async begin(t: HistoryTest, type: FilesystemName, seed: number): Promise<History> {
    const size = sizes[type]!;
    const server = await startDattosrv(t, ['--create']);
    const disk = await makeLoop(t, { size, filesystem: type, mount: true });
    const mountPoint = disk.mountPoint!;
    await fillWithFiles(mountPoint, 24 * MiB);
    const writers = [
      await startStamper(t, mountPoint, { seed, bytesPerSecond: 3 * MiB }),
      await startChurn(t, mountPoint),
    ];
    const places = {
      scratch: scratchFor(t),
      device: disk.device,
      mountPoint,
      target: ['--device', mountPoint, '--target', server.uriOf(`${type}@${size}`)],
      proof: await frozenProof(t, {
        ...{ type, size, device: disk.device },
        image: join(server.directory, type),
      }),
    };
    return new History(t, type, seeded(seed), places, writers, await startDaemon({ tracking: true }));
  }

  /** Runs a job to its end and compares its image. */
  async proven(kind: KindFlag): Promise<void> {
    const args = [...this.#target, ...this.#proof.args];
    const { status, code, stderr } = await backUp(this.#daemon, args, kind);
    const device = status.devices[0]!;
    assert.deepEqual(
      [status.state, status.error, device.kind, device.fallback_reason, device.tracker],
      ['SUCCEEDED', null, kind.slice(2), null, 'ebpf'],
      stderr,
    );
    // A writer may be as fast as the target. No other warning is allowed.
    assert.deepEqual(
      status.warnings.filter((warning) => warning.code !== 'CANNOT_CONVERGE'),
      [],
    );
    assert.equal(code, status.warnings.length === 0 ? 0 : 5);
    for (const writer of this.#writers) writer.assertRunning();
    await this.#proof.assertSame(`after ${this.#told()}`);
    this.#count(kind.slice(2));
    if (device.freeze_ms !== null) this.#frozen.push(device.freeze_ms);
  }

  /** Keeps an incremental from completing, or ends the daemon between jobs. */
  async interrupted(): Promise<void> {
    const how = interruptions[Math.floor(this.random() * interruptions.length)]!;
    const moment = Math.floor(this.random() * 2500);
    if (how === 'killed while idle' || how === 'stopped and started') {
      if (how === 'killed while idle') await this.#daemon.kill();
      else await this.#daemon.end();
      await sleep(moment / 5);
      await this.#startAgain();
      this.#count(how);
    } else await this.#interruptedJob(how, moment);
  }

  async #interruptedJob(how: Interruption, moment: number): Promise<void> {
    const reached = join(this.#scratch, 'reached');
    const hook = await scriptIn(this.#scratch, 'wait', [
      `: > ${reached}`,
      `for i in $(seq 100); do [ -e ${reached} ] || exit 0; sleep 0.05; done`,
    ]);
    const hooks: Partial<Record<Interruption, readonly string[]>> = {
      'killed while frozen': ['--frozen-hook', hook, '--max-freeze', '20s'],
      // The post-thaw hook needs a pre-freeze hook, because it undoes that hook's work.
      'killed after the thaw': ['--pre-freeze-hook', '/bin/true', '--post-thaw-hook', hook],
    };
    const awaited = hooks[how];
    const job = await startJob(
      this.#daemon,
      [...this.#target, ...(awaited ?? ['--rate', '6M'])],
      '--incremental',
    );
    if (awaited === undefined) await sleep(moment);
    else await untilFile(reached);
    if (how === 'cancelled') await dattocli(['stopbackup', job], this.#daemon);
    else {
      await this.#daemon.kill();
      await rm(reached, { force: true });
      await this.#startAgain();
    }
    const { state } = await untilEnded(this.#daemon, job);
    this.#count(`${how}: ${state}`);
  }

  async end(): Promise<void> {
    for (const writer of this.#writers) await writer.stop();
    await assertNothingLeft(this.#daemon, { devices: [this.#device], mountPoints: [this.#mountPoint] });
    this.#t.diagnostic(
      `${this.#type}: ${this.#told()}; frozen for ${Math.round(Math.max(...this.#frozen))} ms at most, the copying of the device included`,
    );
  }

  async #startAgain(): Promise<void> {
    this.#daemon = await startDaemon({ paths: this.#daemon, tracking: true });
  }

  #count(what: string): void {
    this.#counts.set(what, (this.#counts.get(what) ?? 0) + 1);
  }

  #told(): string {
    return [...this.#counts].map(([what, count]) => `${count} ${what}`).join(', ');
  }
}
