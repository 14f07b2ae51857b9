/**
 * The job table: starts, finds, pauses and stops jobs, and reports their progress to listeners.
 *
 * Two jobs may run at the same time if their devices are disjoint and do not lie on one another, and if their targets
 * differ. A device is claimed before anything is checked, and until its job has ended. So two starts at the same moment
 * cannot both win.
 */
import { EventEmitter } from 'node:events';
import type { DevicePair, JobEnvironment, PreparedJob, PrepareJob, RunningJob } from '../backup/job.ts';
import { AgentError, toAgentError } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { freshUuid } from '../base/random.ts';
import type { DaemonDependencies } from './daemon-dependencies.ts';
import type { JobOptionsDocument } from '../api/job-options.ts';
import type { JobStatus } from '../api/job-status.ts';
import type { StartDocument } from '../api/start.ts';
import type { History } from './history.ts';
import { toJobOptions } from './job-options.ts';
import { type Preparation, Preparations } from './preparations.ts';
import { type Reservation, Reservations } from './reservations.ts';

export interface JobTableOptions {
  readonly dependencies: Pick<DaemonDependencies, 'prepareJob' | 'listDevices' | 'findDevice'>;
  readonly history: History;
  readonly environment: JobEnvironment;
  readonly defaults: JobOptionsDocument;
  readonly log: Log;
  /** How often listeners get the progress, milliseconds. */
  readonly tickMs?: number;
  /** How often the progress of a running job is recorded, milliseconds. */
  readonly recordMs?: number;
}

interface Entry {
  readonly job: RunningJob;
  /** The status that listeners got last, as text, so that no status is sent twice. */
  told: string;
}

export class JobTable {
  readonly #options: JobTableOptions;
  readonly #log: Log;
  readonly #history: History;
  readonly #reservations = new Reservations();
  readonly #preparations = new Preparations();
  readonly #running = new Map<string, Entry>();
  readonly #starting = new Set<Promise<unknown>>();
  readonly #events = new EventEmitter<{ status: [JobStatus] }>().setMaxListeners(0);
  readonly #tickMs: number;
  readonly #recordMs: number;
  #ticker: NodeJS.Timeout | undefined;
  #lastRecord = 0;
  #stopping = false;

  constructor(options: JobTableOptions) {
    this.#options = options;
    this.#log = options.log;
    this.#history = options.history;
    this.#tickMs = options.tickMs ?? 500;
    this.#recordMs = options.recordMs ?? 10_000;
  }

  get runningCount(): number {
    return this.#running.size;
  }

  /**
   * Checks everything, then starts the job. Resolves with its status once it runs. If `gone` fires, the client does not
   * wait for the answer any more, so no job is started.
   */
  async start(request: StartDocument, gone?: AbortSignal): Promise<JobStatus> {
    if (request.devices.length === 0)
      throw new AgentError('NO_DEVICES', 'No devices given to backup', {
        hint: 'name at least one with --device-pair DEVICE HOST PORT',
      });
    const starting = this.#start(request, gone);
    this.#starting.add(starting);
    try {
      return await starting;
    } finally {
      this.#starting.delete(starting);
    }
  }

  async #start(request: StartDocument, gone: AbortSignal | undefined): Promise<JobStatus> {
    const { listDevices, findDevice } = this.#options.dependencies;
    const devices = await listDevices();
    const pairs: DevicePair[] = [];
    for (const { device, target } of request.devices)
      pairs.push({ device: await findDevice(devices, device), target });
    const uuid = freshUuid();
    const { kind } = request;
    this.#refuseWhenStopping();
    const options = toJobOptions(request.options ?? {}, this.#options.defaults);
    const reservation = this.#reservations.reserve(uuid, pairs, devices);
    const preparation = this.#preparations.begin(uuid, kind, pairs);
    const leave = (): void =>
      preparation.cancel(new AgentError('CANCELLED', 'The client does not wait for the start any more'));
    gone?.addEventListener('abort', leave);
    if (gone?.aborted === true) leave();
    let prepared: PreparedJob | undefined;
    try {
      prepared = await this.#prepare({ uuid, kind, pairs, devices, options }, preparation, reservation);
      // Recorded before it runs: if the daemon dies now, the job will be shown as interrupted.
      this.#history.put(prepared.status());
      this.#run(prepared.start(), reservation);
      preparation.began();
      return this.get(uuid);
    } catch (error) {
      if (prepared !== undefined && !this.#running.has(uuid)) {
        await prepared.discard();
        this.#reservations.release(reservation);
      }
      this.#events.emit('status', preparation.failed(toAgentError(error)));
      throw error;
    } finally {
      gone?.removeEventListener('abort', leave);
      this.#preparations.end(preparation);
    }
  }

  /** Runs the checks. If they are cancelled, the devices stay claimed until all of their work has ended. */
  #prepare(
    request: Omit<Parameters<PrepareJob>[0], 'signal'>,
    preparation: Preparation,
    reservation: Reservation,
  ): Promise<PreparedJob> {
    const { dependencies, environment } = this.#options;
    return preparation.run((signal) => dependencies.prepareJob({ ...request, signal }, environment), {
      late: (prepared) => prepared.discard(),
      rest: (over) => this.#preparations.goesOn(over.then(() => this.#reservations.release(reservation))),
    });
  }

  #run(job: RunningJob, reservation: Reservation): void {
    this.#running.set(job.uuid, { job, told: '' });
    const devices = reservation.claims.map(({ path, target }) => `${path} to ${target}`);
    this.#log.info({ job: job.uuid, devices }, 'job started');
    this.#history.put(job.status());
    this.#tell(job.uuid);
    this.#ticker ??= setInterval(() => this.#tick(), this.#tickMs);
    void job.done.then((status) => {
      this.#running.delete(job.uuid);
      this.#reservations.release(reservation);
      if (this.#running.size === 0) {
        clearInterval(this.#ticker);
        this.#ticker = undefined;
      }
      this.#history.put(status);
      const { state, error, warnings } = status;
      this.#log.info(
        { job: job.uuid, state, error, warnings, freeze_ms: status.devices.map((each) => each.freeze_ms) },
        'job ended',
      );
      this.#events.emit('status', status);
    });
  }

  /** Returns a job by its UUID or a unique beginning of it. Throws JOB_NOT_FOUND or BAD_USAGE. */
  get(name: string): JobStatus {
    const uuid = this.#resolve(name);
    const status =
      this.#running.get(uuid)?.job.status() ??
      this.#preparations.get(uuid)?.status() ??
      this.#history.get(uuid);
    if (status === undefined) throw notFound(name);
    return status;
  }

  /** Returns at most `limit` jobs, the newest first. */
  list(limit?: number): JobStatus[] {
    const preparing = this.#preparations.list().filter(({ uuid }) => !this.#running.has(uuid));
    return [
      ...preparing.map((each) => each.status()),
      ...this.#history.list(limit).map((status) => this.#running.get(status.uuid)?.job.status() ?? status),
    ].slice(0, limit);
  }

  /** Records the present status of each running job. */
  record(): void {
    for (const { job } of this.#running.values()) this.#history.put(job.status());
  }

  /** Returns the statuses of the jobs that run. */
  running(): JobStatus[] {
    return [...this.#running.values()].map(({ job }) => job.status());
  }

  /**
   * Cancels a job. Resolves with its final status when all of the job has ended. Resolves at once if the job is still
   * being prepared: its checks may take time to end, and they claim the devices until then.
   */
  async stop(name: string, reason: string): Promise<JobStatus> {
    const preparation = this.#preparations.get(this.#resolve(name));
    if (preparation !== undefined) {
      this.#log.info({ job: preparation.uuid, reason }, 'the preparation of a job is being cancelled');
      preparation.cancel(new AgentError('CANCELLED', `Cancelled: ${reason}`));
      const status = await preparation.ended;
      // The job may have begun at that very moment. Then it is cancelled as a running job.
      if (status !== undefined) {
        this.#history.put(status);
        return status;
      }
    }
    const { job } = this.#runningJob(name);
    this.#log.info({ job: job.uuid, reason }, 'job is being cancelled');
    await job.cancel(reason);
    return job.done;
  }

  pause(name: string): JobStatus {
    return this.#change(name, (job) => job.pause());
  }

  resume(name: string): JobStatus {
    return this.#change(name, (job) => job.resume());
  }

  /**
   * Calls back with every change of any job, several times a second during progress. Returns the unsubscribe function.
   */
  subscribe(listener: (status: JobStatus) => void): () => void {
    this.#events.on('status', listener);
    return () => this.#events.off('status', listener);
  }

  /** Starts no more jobs, cancels the running ones, and resolves when all have ended. */
  async shutDown(reason: string): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#ticker);
    for (const preparation of this.#preparations.list())
      preparation.cancel(
        new AgentError('CANCELLED', 'dattod is shutting down', { hint: 'start it again first' }),
      );
    const cancelled = [...this.#running.keys()].map((uuid) => this.stop(uuid, reason));
    await Promise.allSettled([...this.#starting, ...cancelled]);
    await this.#preparations.over();
  }

  #refuseWhenStopping(): void {
    if (this.#stopping)
      throw new AgentError('CANCELLED', 'dattod is shutting down', { hint: 'start it again first' });
  }

  #change(name: string, change: (job: RunningJob) => void): JobStatus {
    const { job } = this.#runningJob(name);
    change(job);
    const status = job.status();
    this.#log.info({ job: job.uuid, paused: status.paused }, 'job was paused or resumed');
    this.#tell(job.uuid);
    return status;
  }

  #runningJob(name: string): Entry {
    const uuid = this.#resolve(name);
    const entry = this.#running.get(uuid);
    if (entry !== undefined) return entry;
    if (this.#preparations.get(uuid) !== undefined)
      throw new AgentError('JOB_NOT_RUNNING', 'Job not running', { hint: `job ${uuid} is being prepared` });
    const ended = this.#history.get(uuid);
    if (ended === undefined) throw notFound(name);
    throw new AgentError('JOB_NOT_RUNNING', 'Job not running', {
      hint: `job ${uuid} is ${ended.state} since ${ended.finished_at ?? 'its end'}`,
    });
  }

  #resolve(name: string): string {
    const wanted = name.toLowerCase();
    if (wanted.length === 36) return wanted;
    const uuids = [...this.#preparations.list().map(({ uuid }) => uuid), ...this.#history.uuids()];
    const found = [...new Set(uuids)].filter((uuid) => uuid.startsWith(wanted));
    if (found.length > 1)
      throw new AgentError('BAD_USAGE', `${found.length} jobs begin with "${name}"`, {
        hint: 'write more of the UUID',
      });
    if (found[0] === undefined) throw notFound(name);
    return found[0];
  }

  #tick(): void {
    const now = performance.now();
    const record = now - this.#lastRecord >= this.#recordMs;
    if (record) this.#lastRecord = now;
    for (const [uuid, { job }] of this.#running) {
      if (this.#events.listenerCount('status') > 0) this.#tell(uuid);
      if (record) this.#history.put(job.status());
    }
  }

  #tell(uuid: string): void {
    const entry = this.#running.get(uuid);
    if (entry === undefined) return;
    const status = entry.job.status();
    const text = JSON.stringify(status);
    if (text === entry.told) return;
    entry.told = text;
    this.#events.emit('status', status);
  }
}

function notFound(name: string): AgentError {
  return new AgentError('JOB_NOT_FOUND', `No job has the UUID ${name}`, {
    hint: "'dattocli jobs' lists them",
  });
}
