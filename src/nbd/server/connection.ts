/**
 * One client from greeting to goodbye. This is the library's door: whoever has a byte stream and an
 * ExportProvider can serve NBD over it (dattosrv does over sockets, tests over memory).
 */
import { MiB } from '../../base/bytes.ts';
import { toAgentError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { commandName, DEFAULT_MAX_PAYLOAD, errorName } from '../protocol/constants.ts';
import type { BlockSizes } from '../protocol/options.ts';
import { ExportError, type ExportProvider } from './backend.ts';
import { BufferPool } from './buffer-pool.ts';
import { type Agreement, negotiate } from './handshake.ts';
import { ClientGone } from './handshake-input.ts';
import { MemoryBudget } from './memory-budget.ts';
import { Transmission, type TransmissionEvents } from './transmission.ts';
import type { Wire } from './wire.ts';

export interface ServerOptions {
  readonly exports: ExportProvider;
  readonly log: Log;
  /** Makes a TLS wire of a plain one; where it is given, TLS is forced. */
  readonly startTls?: (wire: Wire) => Promise<Wire>;
  /** Shared by the connections of a thread. */
  readonly pool?: BufferPool;
  readonly budget?: MemoryBudget;
  /** Called when the client has chosen an export. False: it is cut off. */
  readonly entered?: () => boolean;
  readonly blockSizes?: BlockSizes;
  /** How long a client may take to choose an export, milliseconds. */
  readonly handshakeTimeoutMs?: number;
  /** How long a client may take to fetch what is left for it when the connection ends, milliseconds. */
  readonly goodbyeMs?: number;
}

/** Any offset, holes in pages, and payloads as large as every server should take. */
const defaultBlockSizes: BlockSizes = { minimum: 1, preferred: 4096, maximum: DEFAULT_MAX_PAYLOAD };

export interface ServedConnection {
  /** Resolves when the connection is closed and nothing of it runs; never rejects. */
  readonly done: Promise<void>;
  /** Finishes the requests under way, makes them durable, and closes. */
  stop(): void;
  /** Cuts the client off; requests under way still end. */
  drop(reason: string): void;
}

export function serveConnection(wire: Wire, options: ServerOptions): ServedConnection {
  let stop!: () => void;
  const stopped = new Promise<void>((resolve) => (stop = resolve));
  return {
    done: serve(wire, options, stopped),
    stop,
    drop: (reason) => wire.destroy(new Error(reason)),
  };
}

async function serve(wire: Wire, options: ServerOptions, stopped: Promise<void>): Promise<void> {
  const { log } = options;
  let current = wire;
  const { goodbyeMs = 5000 } = options;
  try {
    const agreed = await withinTime(wire, options, stopped);
    if (agreed === undefined) return;
    current = agreed.wire;
    void stopped.then(() => {
      // Long enough for answers under way; one who does not take them does not keep the server.
      setTimeout(() => current.destroy(), goodbyeMs).unref();
    });
    await transmit(agreed, options, stopped);
  } catch (error) {
    if (error instanceof ClientGone) log.debug('client gone during the handshake');
    else if (error instanceof ExportError) log.warn({ error: error.message }, 'export refused');
    else {
      const { code, message } = toAgentError(error);
      log.warn({ code, error: message }, 'connection given up');
    }
    current.destroy();
  } finally {
    wireMustClose(current, goodbyeMs);
    await current.closed;
    wire.destroy();
  }
}

/** The handshake, ended by the clock and by `stopped`. */
async function withinTime(
  wire: Wire,
  options: ServerOptions,
  stopped: Promise<void>,
): Promise<Agreement | undefined> {
  const timeout = options.handshakeTimeoutMs ?? 30_000;
  let over = false;
  const timer = setTimeout(() => wire.destroy(new Error(`no export chosen within ${timeout} ms`)), timeout);
  void stopped.then(() => {
    if (!over) wire.destroy();
  });
  try {
    return await negotiate(wire, {
      exports: options.exports,
      blockSizes: options.blockSizes ?? defaultBlockSizes,
      startTls: options.startTls,
    });
  } finally {
    over = true;
    clearTimeout(timer);
  }
}

async function transmit(agreed: Agreement, options: ServerOptions, stopped: Promise<void>): Promise<void> {
  const { wire, backend, structured, allocationContext, exportName } = agreed;
  const { log } = options;
  const { size, readOnly, fastZero } = backend;
  const { maximum: maximumPayload } = options.blockSizes ?? defaultBlockSizes;
  const terms = { size, readOnly, structured, fastZero, maximumPayload, allocationContext };
  const events: TransmissionEvents = {
    failed: (command, { error, message }) =>
      log.warn(
        { export: exportName, command: commandName(command), error: errorName(error) },
        `request failed: ${message}`,
      ),
  };
  const pool = options.pool ?? new BufferPool(4 * MiB);
  const budget = options.budget ?? new MemoryBudget();
  const transmission = new Transmission(wire, backend, terms, pool, events, budget);
  log.info({ export: exportName, size, read_only: readOnly }, 'export opened');
  try {
    if (options.entered?.() === false) wire.destroy(new Error('there are too many connections'));
    else transmission.start(agreed.rest());
    const stopping = await Promise.race([
      wire.closed.then(() => false),
      transmission.finished.then(() => false),
      stopped.then(() => true),
    ]);
    await transmission.drain();
    if (stopping && transmission.unflushed) await backend.flush();
  } finally {
    // On every path: a request that still ran would reach the next file that gets the descriptor's number.
    await transmission.drain();
    await backend.close();
    log.info({ export: exportName, ...reasonOf(wire) }, 'export closed');
  }
  wire.end();
}

function reasonOf(wire: Wire): { error?: string } {
  return wire.failure === undefined ? {} : { error: wire.failure.message };
}

/** A client that does not end its side after we ended ours gets a little time, not for ever. */
function wireMustClose(wire: Wire, goodbyeMs: number): void {
  const timer = setTimeout(() => wire.destroy(), goodbyeMs);
  timer.unref();
  void wire.closed.then(() => clearTimeout(timer));
}
