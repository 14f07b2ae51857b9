/**
 * A server of image files. It passes each accepted connection to one of a few threads (image-server-worker.ts). A connection
 * stays with its thread, which reads and writes the images itself.
 */
import { createServer, type Server, type Socket } from 'node:net';
import { Worker } from 'node:worker_threads';
import { entryPath } from '../../base/entry.ts';
import { AgentError } from '../../base/errors.ts';
import { listenOn } from '../../base/listen.ts';
import type { Log } from '../../base/log.ts';
import { ThreadCalls } from '../../base/thread-calls.ts';
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

export interface ImageThreadProtocol {
  readonly calls: {
    /** Serves a client until the connection has ended. `fd`: a descriptor that is the thread's from now on. */
    serve: { args: { readonly id: number; readonly fd: number }; result: undefined };
    /** Finishes the requests in progress, makes them durable, and closes. */
    stop: { args: undefined; result: undefined };
  };
  readonly notices: {
    drop: { readonly id: number; readonly reason: string };
  };
  readonly events: {
    /** The client has chosen an export. */
    entered: number;
  };
}

interface Thread {
  readonly worker: Worker;
  readonly calls: ThreadCalls<ImageThreadProtocol>;
  readonly connections: Set<number>;
  /** The thread has served a connection, so it can start. */
  used: boolean;
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
    for (const { calls, connections } of threads)
      if (connections.has(id)) calls.notify('drop', { id, reason });
  };
  const entered = (id: number): void => {
    if (!admission.enter(id)) drop(id, 'too many connections');
  };
  const start = (): Thread => {
    const thread = startThread(options, entered, () => {
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
      handOver(socket, idlest, id, () => admission.left(id));
      idlest.used = true;
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
        threads.map(async ({ worker, calls }) => {
          // A thread that has ended has nothing left to finish.
          await calls.call('stop', undefined).catch(() => undefined);
          await worker.terminate();
        }),
      );
    },
  };
}

function startThread(options: ImageServerOptions, entered: (id: number) => void, onLost: () => void): Thread {
  const workerData: ImageWorkerData = {
    exports: options.exports,
    tls: options.tls,
    logLevel: options.log.level,
    memory: Math.max(sharedBytes / options.threads, 2 * DEFAULT_MAX_PAYLOAD),
  };
  const worker = new Worker(entryPath(import.meta.url, './image-server-worker.ts'), { workerData });
  const calls = new ThreadCalls<ImageThreadProtocol>(worker, {
    whyEnded: (cause) => new AgentError('INTERNAL', 'The thread has ended', { cause }),
    onEnd: ({ cause }) => {
      if (cause instanceof Error) options.log.error({ error: String(cause) }, 'a thread failed');
    },
    events: { entered },
  });
  void calls.exited.then(onLost);
  return { worker, calls, connections: new Set(), used: false };
}

/** Gives the thread a duplicate of the descriptor. Closing ours does not end the connection. */
function handOver(socket: Socket, { calls, connections }: Thread, id: number, left: () => void): void {
  // Node has no public API for the descriptor of an accepted socket.
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const copy = duplicate(fd);
  connections.add(id);
  const ended = (): void => {
    connections.delete(id);
    left();
  };
  calls.call('serve', { id, fd: copy }).then(ended, ended);
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
