/**
 * A server of image files. It passes each accepted connection to one of a few threads (image-server-worker.ts). A connection
 * stays with its thread, which reads and writes the images itself.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { entryPath } from '../../base/entry.ts';
import { AgentError } from '../../base/errors.ts';
import { listenOn } from '../../base/listen.ts';
import type { Log } from '../../base/log.ts';
import { duplicate } from '../../linux/descriptors.ts';
import { DEFAULT_MAX_PAYLOAD } from '../protocol/constants.ts';
import type { TcpAddress } from './address.ts';
import { Admission } from './admission.ts';
import { sharedBytes } from './memory-budget.ts';
import type { DirectoryExportsOptions } from './directory-exports.ts';
import type { TlsSettings } from './tls.ts';

export interface ImageServerOptions {
  readonly listen: TcpAddress | { readonly path: string };
  readonly exports: DirectoryExportsOptions;
  readonly tls: TlsSettings | undefined;
  readonly maximumConnections: number;
  readonly threads: number;
  readonly log: Log;
}

/** The settings of a thread. */
export interface ImageWorkerData {
  readonly exports: DirectoryExportsOptions;
  readonly tls: TlsSettings | undefined;
  readonly logLevel: string;
  /** Bytes of memory that large requests of the thread's clients share. */
  readonly memory: number;
}

export type ToImageWorker =
  | { readonly kind: 'serve'; readonly id: number; readonly fd: number }
  | { readonly kind: 'drop'; readonly id: number; readonly reason: string }
  /** Finish the requests in progress, make them durable, and close. */
  | { readonly kind: 'stop' };

export type FromImageWorker =
  /** The client has chosen an export. */
  | { readonly kind: 'entered'; readonly id: number }
  | { readonly kind: 'closed'; readonly id: number }
  | { readonly kind: 'stopped' };

interface Thread {
  readonly worker: Worker;
  readonly connections: Set<number>;
  /** The thread has served a connection, so it can start. */
  used: boolean;
  readonly ended: Promise<unknown>;
}

export interface ImageServer {
  /** `nbd://127.0.0.1:10809`, `nbds+unix:///?socket=/run/x.sock`, … */
  readonly uri: string;
  /** Rejects if the threads cannot run, so that no client can be served. */
  readonly failed: Promise<never>;
  /** Stops accepting connections, finishes the requests in progress, makes them durable, and closes. */
  stop(): Promise<void>;
}

/** Throws FILE_ERROR if the address cannot be used. */
export async function startImageServer(options: ImageServerOptions): Promise<ImageServer> {
  const { log } = options;
  let stopping = false;
  const threads: Thread[] = [];
  let fail!: (error: Error) => void;
  const failed = new Promise<never>((_resolve, reject) => (fail = reject));
  failed.catch(() => undefined);
  const admission = new Admission<number>(options.maximumConnections);
  let next = 0;
  const drop = (id: number, reason: string): void => {
    for (const { worker, connections } of threads)
      if (connections.has(id)) worker.postMessage({ kind: 'drop', id, reason } satisfies ToImageWorker);
  };
  const hear: Hear = {
    entered: (id) => {
      if (!admission.enter(id)) drop(id, 'too many connections');
    },
    left: (id) => admission.left(id),
  };
  const start = (): Thread => {
    const thread = startThread(options, hear, () => {
      if (stopping) return;
      // A thread that failed at once would fail again.
      if (!thread.used) {
        fail(new AgentError('INTERNAL', 'A thread of the server ended right after its start'));
        return;
      }
      log.error('a thread and its connections ended unexpectedly; starting another one');
      threads.splice(threads.indexOf(thread), 1, start());
    });
    return thread;
  };
  for (let i = 0; i < options.threads; i++) threads.push(start());

  const server = createServer({ pauseOnConnect: true }, (socket) => {
    const id = next++;
    const idlest = threads.reduce((a, b) => (b.connections.size < a.connections.size ? b : a));
    const admitted = admission.arrive(id, socket.remoteAddress ?? '');
    if (admitted === 'refused') {
      log.warn(
        { connections: options.maximumConnections },
        'connection refused: --max-connections is reached',
      );
      socket.destroy();
      return;
    }
    if (admitted.drop !== undefined)
      drop(admitted.drop, 'dropped to make room for a new client: too many are still negotiating');
    try {
      handOver(socket, idlest, id);
    } catch (error) {
      log.warn({ error: String(error) }, 'connection refused');
      admission.left(id);
      socket.destroy();
    }
  });
  try {
    await listenOn(server, options.listen);
  } catch (error) {
    stopping = true;
    await Promise.all(threads.map(({ worker }) => worker.terminate()));
    throw error;
  }
  return {
    uri: uriOf(server, options),
    failed,
    stop: async () => {
      stopping = true;
      server.close();
      await Promise.all(
        threads.map(async ({ worker, ended }) => {
          worker.postMessage({ kind: 'stop' } satisfies ToImageWorker);
          await ended;
        }),
      );
    },
  };
}

interface Hear {
  entered(id: number): void;
  left(id: number): void;
}

function startThread(options: ImageServerOptions, hear: Hear, onLost: () => void): Thread {
  const workerData: ImageWorkerData = {
    exports: options.exports,
    tls: options.tls,
    logLevel: options.log.level,
    memory: Math.max(sharedBytes / options.threads, 2 * DEFAULT_MAX_PAYLOAD),
  };
  const worker = new Worker(entryPath(import.meta.url, './image-server-worker.ts'), { workerData });
  const thread: Thread = {
    worker,
    connections: new Set(),
    used: false,
    ended: once(worker, 'exit').catch(() => undefined),
  };
  worker.on('message', (message: FromImageWorker) => {
    if (message.kind === 'entered') hear.entered(message.id);
    else if (message.kind === 'closed') {
      thread.connections.delete(message.id);
      hear.left(message.id);
    } else void worker.terminate();
  });
  worker.on('error', (error) => options.log.error({ error: String(error) }, 'a thread failed'));
  worker.once('exit', () => {
    for (const id of thread.connections) hear.left(id);
    onLost();
  });
  return thread;
}

/** Gives the thread a duplicate of the descriptor. Closing ours does not end the connection. */
function handOver(socket: Socket, thread: Thread, id: number): void {
  // Node has no public API for the descriptor of an accepted socket.
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const copy = duplicate(fd);
  thread.connections.add(id);
  thread.used = true;
  thread.worker.postMessage({ kind: 'serve', id, fd: copy } satisfies ToImageWorker);
  socket.destroy();
}

function uriOf(server: Server, { tls }: ImageServerOptions): string {
  const scheme = tls === undefined ? 'nbd' : 'nbds';
  const address = server.address();
  if (typeof address === 'string') return `${scheme}+unix:///?socket=${encodeURI(address)}`;
  if (address === null) throw new Error('the server does not listen');
  const host = address.family === 'IPv6' ? `[${address.address}]` : address.address;
  return `${scheme}://${host}:${address.port}`;
}
