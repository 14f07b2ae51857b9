/**
 * Reads the content of devices in a process of its own. Even SIGKILL cannot interrupt a read from a dead disk, or from
 * a loop device whose file hangs. The reading process does not end before the read returns. In the daemon such a read
 * would keep the daemon's locks, and no other daemon could start. The reader process is started when it is needed. It
 * ends when it has been idle for a while, or when its parent ends.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { noAnswer } from '../base/bounded-call.ts';
import { entryPath, nodeFlags } from '../base/entry.ts';
import { afterOwnTime } from '../base/patience.ts';
import type { Probed } from './probe-device.ts';

export interface ProbeQuestion {
  readonly id: number;
  /** Path of the device. */
  readonly path: string;
}

export type ProbeAnswer =
  /** The first message: the process has started. */
  | { readonly ready: true }
  | { readonly id: number; readonly probed: Probed }
  | { readonly id: number; readonly error: string };

export interface ProbeLimits {
  /** Milliseconds that one device may take, from the moment when it is asked for. */
  readonly limitMs: number;
  /** Number of devices that are read at once. Many volumes may lie on one slow disk. */
  readonly atOnce: number;
  /** Number of hung devices after which the process is replaced. Each keeps one of its 64 threads. */
  readonly mostHung: number;
  /** Milliseconds within which the process must start. */
  readonly startMs: number;
  /** Milliseconds without a question after which the process is ended. */
  readonly idleMs: number;
}

const defaultLimits: ProbeLimits = {
  limitMs: 5000,
  atOnce: 16,
  mostHung: 40,
  startMs: 30_000,
  idleMs: 60_000,
};

interface Waiting {
  readonly path: string;
  readonly resolve: (probed: Probed) => void;
  readonly reject: (error: Error) => void;
}

interface Asked extends Waiting {
  /** The device hangs, and its caller knows. */
  hangs: boolean;
  /** Stops the timer of its time limit. */
  readonly heard: () => void;
}

interface Reader {
  readonly child: ChildProcess;
  ready: boolean;
  /** Stops the timer of its start. */
  started: () => void;
  readonly asked: Map<number, Asked>;
}

export class ProbeProcess {
  readonly #limits: ProbeLimits;
  readonly #startChild: () => ChildProcess;
  #reader: Reader | undefined;
  #queue: Waiting[] = [];
  #lastId = 0;
  #idle: NodeJS.Timeout | undefined;

  constructor(limits: Partial<ProbeLimits> = {}, startChild: () => ChildProcess = startReader) {
    this.#limits = { ...defaultLimits, ...limits };
    this.#startChild = startChild;
  }

  /**
   * Reads the content of the device, as `probeDevice` does. Throws NO_ANSWER if the device hangs. If it hung before
   * and has not answered since, throws at once. Rejects if the device cannot be read.
   */
  ask(path: string): Promise<Probed> {
    return new Promise((resolve, reject) => {
      if ([...(this.#reader?.asked.values() ?? [])].some((each) => each.hangs && each.path === path)) {
        reject(noAnswer('reading', path, this.#limits.limitMs));
        return;
      }
      clearTimeout(this.#idle);
      this.#queue.push({ path, resolve, reject });
      this.#pump();
    });
  }

  /** Sends the questions that wait, as far as the limit allows. */
  #pump(): void {
    const reader = (this.#reader ??= this.#start());
    if (!reader.ready) return;
    for (;;) {
      const asked = [...reader.asked.values()].filter((each) => !each.hangs).length;
      if (asked >= this.#limits.atOnce) return;
      const next = this.#queue.shift();
      if (next === undefined) break;
      this.#send(reader, next);
    }
    if ([...reader.asked.values()].every((each) => each.hangs)) this.#rest(reader);
  }

  #send(reader: Reader, waiting: Waiting): void {
    const { limitMs } = this.#limits;
    const id = ++this.#lastId;
    const asked: Asked = {
      ...waiting,
      hangs: false,
      heard: afterOwnTime(limitMs, () => {
        asked.hangs = true;
        waiting.reject(noAnswer('reading', waiting.path, limitMs));
        this.#leaveIfHung(reader);
        this.#pump();
      }),
    };
    reader.asked.set(id, asked);
    reader.child.ref();
    reader.child.channel?.ref();
    reader.child.send({ id, path: waiting.path } satisfies ProbeQuestion, (error) => {
      if (error !== null) this.#lost(reader, error);
    });
  }

  /** Replaces a process with too many hung reads. That process ends when they return. */
  #leaveIfHung(reader: Reader): void {
    const hung = [...reader.asked.values()].filter((each) => each.hangs).length;
    if (hung < this.#limits.mostHung || this.#reader !== reader) return;
    this.#reader = undefined;
    for (const each of reader.asked.values()) {
      each.heard();
      if (!each.hangs) this.#queue.push(each);
    }
    reader.child.kill('SIGKILL');
    reader.child.unref();
    reader.child.channel?.unref();
  }

  #start(): Reader {
    const child = this.#startChild();
    const reader: Reader = { child, ready: false, started: () => undefined, asked: new Map() };
    reader.started = afterOwnTime(this.#limits.startMs, () =>
      this.#lost(reader, new Error('the process that reads devices did not start in time')),
    );
    child.on('message', (answer: ProbeAnswer) => this.#hear(reader, answer));
    child.once('error', (error) => this.#lost(reader, error));
    child.once('exit', () => this.#lost(reader, new Error('the process that reads devices ended')));
    return reader;
  }

  #hear(reader: Reader, answer: ProbeAnswer): void {
    if (this.#reader !== reader) return;
    if ('ready' in answer) {
      reader.ready = true;
      reader.started();
    } else {
      const asked = reader.asked.get(answer.id);
      reader.asked.delete(answer.id);
      asked?.heard();
      if ('probed' in answer) asked?.resolve(answer.probed);
      else asked?.reject(new Error(answer.error));
    }
    this.#pump();
  }

  /** Called when no question is open: the process no longer keeps its parent alive, and ends if no question comes. */
  #rest(reader: Reader): void {
    reader.child.unref();
    reader.child.channel?.unref();
    clearTimeout(this.#idle);
    this.#idle = setTimeout(() => {
      // Done before its channel closes, so that a question in between goes to a new process.
      if (this.#reader === reader) this.#reader = undefined;
      reader.child.disconnect();
    }, this.#limits.idleMs).unref();
  }

  #lost(reader: Reader, error: Error): void {
    reader.started();
    if (this.#reader !== reader) return;
    this.#reader = undefined;
    clearTimeout(this.#idle);
    for (const each of reader.asked.values()) {
      each.heard();
      each.reject(error);
    }
    for (const { reject } of this.#queue.splice(0)) reject(error);
  }
}

function startReader(): ChildProcess {
  const entry = fileURLToPath(entryPath(import.meta.url, './probe-main.ts'));
  return fork(entry, [], {
    cwd: '/',
    // So that signals from a terminal do not reach it.
    detached: true,
    // A small heap is enough: the process reads megabytes of each device and keeps nothing.
    execArgv: [...nodeFlags, '--max-semi-space-size=1', '--max-old-space-size=64'],
    env: { ...process.env, UV_THREADPOOL_SIZE: '64' },
    serialization: 'advanced',
    stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
  });
}

const reader = new ProbeProcess();

/** Calls `ProbeProcess.ask` of the one reader process that this process has. */
export function probeElsewhere(path: string): Promise<Probed> {
  return reader.ask(path);
}
