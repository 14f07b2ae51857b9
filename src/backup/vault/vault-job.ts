/**
 * A job's work in one vault. It has the writer session that all devices of the job share, the images that they build
 * on, and the one recovery point that they become (docs/formats/vault.md, "Writing a point").
 */
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { agentVersion } from '../../base/version.ts';
import type { Chain, ChainBase, ChainRecord } from '../../tracking/chain.ts';
import { type OpenedVault, openVault } from '../../vault/opening.ts';
import { ChunkIndex } from '../../vault/index/chunk-index.ts';
import type { ImageInTheMaking } from '../../vault/writing/vault-target.ts';
import type { PointDevice, PointMachine } from '../../vault/points/point.ts';
import { readPoint } from '../../vault/points/points.ts';
import { type VaultLocation, formatVaultLocation } from '../../vault/store/location.ts';
import { NamesFile } from '../../vault/writing/names-file.ts';
import { WriterSession, partingMs } from '../../vault/writing/writer-session.ts';
import type { JobEnvironment } from '../job.ts';
import type { BackupKind, JobWarning } from '../../api/job-status.ts';
import { describeMachine } from './point-document.ts';

/** The image of a device while it is made in the vault. */
export interface VaultImage {
  /** The session's view of the image, for the copying threads. */
  readonly making: ImageInTheMaking;
  /** Removes files that are needed only while the image is made. */
  readonly end: () => Promise<void>;
}

/** The facts about its job that a recovery point records. */
export interface PointFacts {
  readonly job: string;
  /** The kind of backup that was requested. */
  readonly kind: BackupKind;
  /** The instant of its images. */
  readonly finished: Date;
  readonly warnings: readonly JobWarning[];
  readonly devices: readonly PointDevice[];
}

/** The vaults of a job, each opened once. */
export class VaultJobs {
  readonly #jobs = new Map<string, VaultJob>();
  readonly #signal: AbortSignal;

  /** `signal` ends opening, and the search for the image to build on. It does not affect the job itself. */
  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  get all(): readonly VaultJob[] {
    return [...this.#jobs.values()];
  }

  async open(location: VaultLocation, environment: JobEnvironment): Promise<VaultJob> {
    const name = formatVaultLocation(location);
    let job = this.#jobs.get(name);
    if (job === undefined) {
      job = await VaultJob.open(location, environment, this.#signal);
      this.#jobs.set(name, job);
    }
    return job;
  }

  async end(): Promise<void> {
    await Promise.all(this.all.map((job) => job.end()));
    this.#jobs.clear();
  }
}

export class VaultJob {
  readonly #opened: OpenedVault;
  readonly #index: ChunkIndex;
  readonly #indexPath: string;
  readonly #session: WriterSession;
  /** Ends the preparation. */
  readonly #signal: AbortSignal;
  readonly #started = new Date();
  /** Collected while the job runs, since that runs programs and takes time. */
  readonly #machine: Promise<PointMachine>;
  #ended = false;

  private constructor(
    opened: OpenedVault,
    index: ChunkIndex,
    indexPath: string,
    session: WriterSession,
    signal: AbortSignal,
  ) {
    this.#opened = opened;
    this.#index = index;
    this.#indexPath = indexPath;
    this.#session = session;
    this.#signal = signal;
    this.#machine = describeMachine();
    this.#machine.catch(() => undefined);
  }

  /** Throws VAULT_…, BAD_TARGET, and the signal's reason. */
  static async open(
    location: VaultLocation,
    environment: JobEnvironment,
    signal: AbortSignal,
  ): Promise<VaultJob> {
    if (environment.vaults === undefined)
      throw new AgentError('NOT_SUPPORTED', `${formatVaultLocation(location)} needs the daemon`, {
        hint: 'dattocli startbackup --target … backs up into a vault',
      });
    await using steps = new AsyncDisposableStack();
    const opened = await openVault(location, environment.vaults, undefined, { signal });
    steps.defer(() => opened.vault.store.close());
    const { indexPath } = opened;
    const index = ChunkIndex.open(indexPath, opened.vault.id);
    steps.defer(() => index.close());
    const session = await WriterSession.begin(opened.vault, index, { signal });
    // `end` closes the store and the index.
    steps.move();
    return new VaultJob(opened, index, indexPath, session, signal);
  }

  /** Directory of the vault, for the check that it is not on the device. Undefined for a bucket. */
  get directory(): string | undefined {
    const { location } = this.#opened;
    return location.kind === 'directory' ? location.path : undefined;
  }

  /** Bytes. */
  get chunkSize(): number {
    return this.#opened.vault.chunkSize;
  }

  /**
   * Returns the image that the next image of the device can build on: that of the chain's last job, if its point and
   * all data that it names still exist. Otherwise returns the reason.
   */
  async findBase(record: ChainRecord | undefined): Promise<ChainBase | { readonly why: string }> {
    const base = record?.base;
    if (record?.state !== 'complete' || base === undefined)
      return { why: 'no backup of this device into this vault has been completed yet' };
    const { vault } = this.#opened;
    const point = await readPoint(vault, base.point, { signal: this.#signal }).catch((error: unknown) => {
      if (error instanceof AgentError && error.code === 'POINT_NOT_FOUND') return undefined;
      throw error;
    });
    if (point === undefined) return { why: `the recovery point ${base.point} of the last backup is gone` };
    if (this.#session.condemned.size === 0 && base.index === this.#index.state) return base;
    const image = { ...base, size: record.size };
    if (await this.#session.keep(image, { level: this.#opened.level, signal: this.#signal })) return base;
    return { why: `a part of the recovery point ${base.point} of the last backup is gone from the vault` };
  }

  /** `base`: the image to build on. If undefined, the image starts as zeros. */
  image(chain: Chain, base: ChainBase | undefined): VaultImage {
    // The folder gets another name when a new chain replaces the old one.
    const names = (): string => join(chain.directory, 'names');
    const namesPath = names();
    NamesFile.create(namesPath);
    const { location, settings, vault, level } = this.#opened;
    return {
      making: {
        location,
        settings,
        secrets: vault.secrets.toMessage(),
        indexPath: this.#indexPath,
        writer: this.#session.id,
        condemned: [...this.#session.condemned],
        namesPath,
        base: base === undefined ? undefined : { root: base.root, levels: base.levels },
        level,
      },
      end: () => rm(names(), { force: true }),
    };
  }

  /** Makes the recovery point appear. Returns the bases that the chains of its devices record, in order. */
  async publish({ job, kind, finished, warnings, devices }: PointFacts): Promise<ChainBase[]> {
    const { id } = this.#session;
    try {
      await this.#session.publish({
        format: 1,
        id,
        finished: finished.toISOString(),
        started: this.#started.toISOString(),
        job,
        kind,
        agent: agentVersion,
        machine: await this.#machine,
        warnings: warnings.map((warning) => ({ ...warning })),
        devices: [...devices],
      });
    } catch (error) {
      // A put that failed may still take effect later, and the point must be complete then.
      if (this.#session.mayStillAppear) {
        this.#session.abandon();
        this.#ended = true;
      }
      throw error;
    }
    const index = this.#index.state;
    return devices.map(({ root, levels }) => ({ point: id, root, levels, index }));
  }

  async end(): Promise<void> {
    // A job may be cancelled because the store does not answer. The end must not wait for the store then.
    const signal = this.#signal.aborted ? AbortSignal.timeout(partingMs) : undefined;
    if (!this.#ended) await this.#session.end({ signal }).catch(() => undefined);
    this.#ended = true;
    this.#index.close();
    await this.#opened.vault.store.close();
  }
}
