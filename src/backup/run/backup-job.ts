/** A job: its state, its status, and the ways to pause and end it. The steps of a backup are in run-backup.ts. */
import type { WarningCode } from '../../base/warning-codes.ts';
import { AgentError, toAgentError } from '../../base/errors.ts';
import type { JobEnvironment, PreparedJob, RunningJob } from '../job.ts';
import type { JobReporter } from '../job-reporter.ts';
import { RateMeter } from './rate-meter.ts';
import type {
  DeviceStatus,
  JobKind,
  JobPhase,
  JobState,
  JobStatus,
  JobWarning,
} from '../../api/job-status.ts';
import type { JobDevice } from '../device-backup.ts';

/** The work of a job, from its start to its success. */
export type JobWork = (reporter: JobReporter, signal: AbortSignal) => Promise<void>;

export class BackupJob implements PreparedJob, RunningJob {
  readonly uuid: string;
  readonly done: Promise<JobStatus>;
  readonly #kind: JobKind;
  readonly #devices: readonly JobDevice[];
  readonly #work: JobWork;
  readonly #environment: JobEnvironment;
  readonly #cancelling = new AbortController();
  readonly #meter = new RateMeter();
  readonly #createdAt = new Date();
  readonly #warnings: JobWarning[] = [];
  readonly #close: () => Promise<void>;
  #resolveDone!: (status: JobStatus) => void;
  #state: JobState = 'NOT_STARTED';
  #phase: JobPhase = 'preparing';
  #paused = false;
  #finishedAt: Date | undefined;
  #error: AgentError | undefined;

  constructor(job: {
    readonly uuid: string;
    readonly kind: JobKind;
    readonly devices: readonly JobDevice[];
    readonly work: JobWork;
    readonly environment: JobEnvironment;
    readonly warnings: readonly JobWarning[];
    /** Closes the resources that belong to the job and not to one of its devices. */
    readonly close?: () => Promise<void>;
  }) {
    this.uuid = job.uuid;
    this.#kind = job.kind;
    this.#devices = job.devices;
    this.#work = job.work;
    this.#environment = job.environment;
    this.#warnings.push(...job.warnings);
    this.#close = job.close ?? (() => Promise.resolve());
    this.done = new Promise((resolve) => {
      this.#resolveDone = resolve;
    });
  }

  start(): RunningJob {
    this.#state = 'IN_PROGRESS';
    void this.#run();
    return this;
  }

  async discard(): Promise<void> {
    await Promise.all(this.#devices.map((device) => device.discard()));
    await this.#close();
  }

  pause(): void {
    this.#setPaused(true);
  }

  resume(): void {
    this.#setPaused(false);
  }

  #setPaused(value: boolean): void {
    if (this.#state !== 'IN_PROGRESS') throw new AgentError('JOB_NOT_RUNNING', 'Job not running');
    this.#paused = value;
    for (const device of this.#devices) device.pool.paused = value;
  }

  async cancel(reason: string): Promise<void> {
    if (this.#state !== 'IN_PROGRESS') throw new AgentError('JOB_NOT_RUNNING', 'Job not running');
    this.#cancelling.abort(new AgentError('CANCELLED', reason));
    for (const device of this.#devices) device.pool.stop();
    await this.done;
  }

  async #run(): Promise<void> {
    const { log } = this.#environment;
    const sample = setInterval(() => this.#meter.add(this.#moved()), 500);
    sample.unref();
    let outcome: { state: JobState; error?: AgentError } = { state: 'SUCCEEDED' };
    log.info(
      { job: this.uuid, devices: this.#devices.map((device) => device.pair.device.path) },
      'job started',
    );
    try {
      await this.#work(
        {
          phase: (phase) => {
            this.#phase = phase;
          },
          warn: (code, message, device) => this.#warn(code, message, device),
          warnings: this.#warnings,
        },
        this.#cancelling.signal,
      );
      for (const device of this.#devices) this.#afterSuccess(device);
    } catch (error) {
      outcome = this.#failure(error);
    }
    clearInterval(sample);
    for (const device of this.#devices) this.#refresh(device);
    await Promise.all(this.#devices.map((device) => device.close()));
    await this.#close();
    // The state changes only now: a client that reads that the job has ended may mount the device.
    this.#state = outcome.state;
    this.#error = outcome.error;
    this.#phase = 'done';
    this.#paused = false;
    this.#finishedAt = new Date();
    this.#resolveDone(this.status());
  }

  #failure(thrown: unknown): { state: JobState; error: AgentError } {
    const { signal } = this.#cancelling;
    if (signal.aborted) {
      const reason: unknown = signal.reason;
      const error = reason instanceof AgentError ? reason : new AgentError('CANCELLED', 'Cancelled');
      return { state: 'CANCELLED', error };
    }
    const error = toAgentError(thrown);
    if (error.code === 'INTERNAL')
      this.#environment.log.error({ job: this.uuid, err: error.cause ?? thrown }, 'defect');
    return { state: 'FAILED', error };
  }

  #afterSuccess({ pool, pair, status }: JobDevice): void {
    const device = pair.device.path;
    if (this.#kind !== 'verify' && !pool.facts.abilities.flush)
      this.#warn(
        'TARGET_CANNOT_FLUSH',
        `${pool.targetName} offers no flush: the image is complete, but a power cut at the receiver may still lose it ` +
          '(nbd-server: set "flush = true" and "fua = true" in its configuration)',
        device,
      );
    if (status.read_errors.length > 0) {
      const bytes = status.read_errors.reduce((sum, { length }) => sum + length, 0);
      this.#warn(
        'READ_ERRORS',
        `${bytes} bytes of ${device} could not be read and are zeros in the image`,
        device,
      );
    }
    if (pool.reconnects > 0)
      this.#warn(
        'RECONNECTED',
        `the connection to ${pool.targetName} was lost ${pool.reconnects} times and came back; samples of what it held ` +
          'before were compared each time' +
          (this.#kind === 'verify' ? '' : ', and what no flush had confirmed was sent again'),
        device,
      );
    if (pool.refused !== undefined)
      this.#warn(
        'FEWER_CONNECTIONS',
        `${pool.targetName} refused additional connections (${pool.refused}), so the job ran with fewer; raise the ` +
          "server's limit of clients, or lower --connections",
        device,
      );
  }

  #warn(code: WarningCode, message: string, device?: string): void {
    this.#warnings.push(device === undefined ? { code, message } : { code, message, device });
    this.#environment.log.warn({ job: this.uuid, code, device }, message);
  }

  #moved(): number {
    return this.#devices.reduce((sum, { pool }) => {
      const { read, verified } = pool.counters();
      return sum + read + verified;
    }, 0);
  }

  #refresh({ status, pool, isLive, totalBytes }: JobDevice): void {
    const { done, sent, zero, verified } = pool.counters();
    status.bytes_verified = verified;
    if (this.#kind === 'verify') {
      status.bytes_transferred = verified;
      status.bytes_unsynced = Math.max(0, status.used_bytes - verified);
      return;
    }
    const total = totalBytes();
    status.bytes_transferred = isLive && status.pass > 1 ? done : Math.min(done, total);
    status.bytes_sent = sent;
    status.bytes_zero = zero;
    status.bytes_unsynced = pool.left?.toSend ?? status.bytes_unsynced;
  }

  status(): JobStatus {
    if (this.#state === 'IN_PROGRESS') for (const device of this.#devices) this.#refresh(device);
    const devices: DeviceStatus[] = this.#devices.map(({ status }) => ({
      ...status,
      read_errors: [...status.read_errors],
    }));
    const rate = this.#state === 'IN_PROGRESS' && !this.#paused ? this.#meter.rate() : 0;
    // The rate counts bytes that are read, and whole fingerprint units are read.
    const left = this.#devices.reduce(
      (sum, { pool, status }) => sum + (pool.left?.toRead ?? status.bytes_unsynced),
      0,
    );
    return {
      uuid: this.uuid,
      kind: this.#kind,
      state: this.#state,
      phase: this.#phase,
      paused: this.#paused,
      created_at: this.#createdAt.toISOString(),
      finished_at: this.#finishedAt?.toISOString() ?? null,
      tracker: [...new Set(this.#devices.map(({ status }) => status.tracker))].join(', '),
      rate: Math.round(rate),
      seconds_left:
        rate > 0 && (this.#phase === 'copying' || this.#kind === 'verify') ? Math.ceil(left / rate) : null,
      warnings: [...this.#warnings],
      error: this.#error?.toDocument() ?? null,
      devices,
    };
  }
}
