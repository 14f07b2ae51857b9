/**
 * Serves one client from the greeting to the end. This is the entry of the server library: it serves NBD over any byte
 * stream with an ExportProvider. dattosrv uses sockets, tests use streams in memory.
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
  /** Upgrades a plain wire to TLS. If present, TLS is required. */
  readonly startTls?: (wire: Wire) => Promise<Wire>;
  /** The pool that the connections of a thread share. */
  readonly pool?: BufferPool;
  readonly budget?: MemoryBudget;
  /** Called when the client has chosen an export. Returns false to drop the client. */
  readonly entered?: () => boolean;
  readonly blockSizes?: BlockSizes;
  /** Time limit for a client to choose an export, milliseconds. */
  readonly handshakeTimeoutMs?: number;
  /** Time limit for a client to read the remaining replies when the connection ends, milliseconds. */
  readonly goodbyeMs?: number;
}

/** Any offset is allowed, pages are preferred, and the payload limit is the one that every server should support. */
const defaultBlockSizes: BlockSizes = { minimum: 1, preferred: 4096, maximum: DEFAULT_MAX_PAYLOAD };

export interface ServedConnection {
  /** Resolves when the connection is closed and all its requests have ended. Never rejects. */
  readonly done: Promise<void>;
  /** Finishes the requests in progress, makes them durable, and closes the connection. */
  stop(): void;
  /** Drops the client. Requests in progress still run to their end. */
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
      // Waits for the client to read the remaining replies. A client that does not read must not block the server.
      setTimeout(() => current.destroy(), goodbyeMs).unref();
    });
    await transmit(agreed, options, stopped);
  } catch (error) {
    if (error instanceof ClientGone) log.debug('client disconnected during the handshake');
    else if (error instanceof ExportError) log.warn({ error: error.message }, 'export refused');
    else {
      const { code, message } = toAgentError(error);
      log.warn({ code, error: message }, 'connection ended by an error');
    }
    current.destroy();
  } finally {
    wireMustClose(current, goodbyeMs);
    await current.closed;
    wire.destroy();
  }
}

/** Runs the handshake. The time limit or `stopped` ends it. */
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
    if (options.entered?.() === false) wire.destroy(new Error('too many connections'));
    else transmission.start(agreed.rest());
    const stopping = await Promise.race([
      wire.closed.then(() => false),
      transmission.finished.then(() => false),
      stopped.then(() => true),
    ]);
    await transmission.drain();
    if (stopping && transmission.unflushed) await backend.flush();
  } finally {
    // Needed on every path: a request that still runs could write to the next file that gets the same descriptor number.
    await transmission.drain();
    await backend.close();
    log.info({ export: exportName, ...reasonOf(wire) }, 'export closed');
  }
  wire.end();
}

function reasonOf(wire: Wire): { error?: string } {
  return wire.failure === undefined ? {} : { error: wire.failure.message };
}

/** Closes the connection if the client does not end its side soon after we ended ours. */
function wireMustClose(wire: Wire, goodbyeMs: number): void {
  const timer = setTimeout(() => wire.destroy(), goodbyeMs);
  timer.unref();
  void wire.closed.then(() => clearTimeout(timer));
}
