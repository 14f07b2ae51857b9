/**
 * Runs a negotiation (negotiate.ts) over a transport: sends its messages, splits the received bytes into the pieces that it
 * asks for, upgrades to TLS, and applies the time limit.
 */
import { AgentError, errnoCode, toAgentError } from '../../base/errors.ts';
import { StreamCutter } from '../protocol/stream-cutter.ts';
import { protocolError } from '../protocol/wire.ts';
import type { Negotiation, Step } from './negotiate.ts';
import type { Transport } from './transport.ts';

export interface HandshakeOptions {
  /** Name of the server in messages. */
  readonly name: string;
  /** Time limit of the whole handshake. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Upgrades to TLS. Absent if the address does not ask for TLS. */
  readonly upgrade?: ((transport: Transport, signal: AbortSignal) => Promise<Transport>) | undefined;
}

export interface HandshakeResult<T> {
  readonly value: T;
  /** The transport for the transmission phase. */
  readonly transport: Transport;
  /** Returns the bytes that arrived after the handshake. The next caller of `transport.receive` must take them once. */
  readonly takeRest: () => Buffer;
}

/**
 * Resolves with the result of the negotiation. Rejects with its error, NBD_CONNECTION_LOST (the connection ended or timed
 * out) or CANCELLED, and destroys the stream.
 */
export async function runHandshake<T>(
  transport: Transport,
  negotiation: Negotiation<T>,
  options: HandshakeOptions,
): Promise<HandshakeResult<T>> {
  const late = AbortSignal.timeout(options.timeoutMs);
  const signal = options.signal === undefined ? late : AbortSignal.any([options.signal, late]);
  const run = new Run(transport, negotiation, options.name);
  const onAbort = (): void => run.fail(stopped(options, run.during));
  signal.addEventListener('abort', onAbort, { once: true });
  try {
    if (signal.aborted) onAbort();
    for (;;) {
      const outcome = await run.next();
      if (outcome !== 'tls')
        return { value: outcome.value, transport: run.transport, takeRest: run.takeRest };
      if (options.upgrade === undefined) throw new Error('TLS without an upgrade');
      run.attach(await options.upgrade(run.transport, signal));
    }
  } catch (error) {
    // The last message (NBD_OPT_ABORT) is still sent.
    const { stream } = run.transport;
    if (stream.writable) stream.end(() => stream.destroy());
    else stream.destroy();
    if (signal.aborted) throw stopped(options, run.during);
    throw toAgentError(error);
  } finally {
    signal.removeEventListener('abort', onAbort);
    run.detach();
  }
}

function stopped(options: HandshakeOptions, during: string): AgentError {
  if (options.signal?.aborted === true) return new AgentError('CANCELLED', 'Cancelled while connecting');
  return new AgentError(
    'NBD_CONNECTION_LOST',
    `${options.name} did not finish the handshake within ${options.timeoutMs} ms (${during})`,
    { hint: 'check that an NBD server listens there, and that its limit of clients is not reached' },
  );
}

type Outcome<T> = 'tls' | { readonly value: T };

class Run<T> {
  transport!: Transport;
  during = 'connecting';
  readonly takeRest = (): Buffer => this.#cutter.takeRest();
  readonly #name: string;
  readonly #negotiation: Negotiation<T>;
  readonly #cutter = new StreamCutter((piece) => this.#advance(piece));
  #outcome: Outcome<T> | undefined;
  #ended: AgentError | undefined;
  #failure: Error | undefined;
  #wake: () => void = () => undefined;

  constructor(transport: Transport, negotiation: Negotiation<T>, name: string) {
    this.#name = name;
    this.#negotiation = negotiation;
    this.attach(transport);
  }

  /** Switches to this transport. The negotiation continues with its next step. */
  attach(transport: Transport): void {
    this.transport = transport;
    this.#outcome = undefined;
    transport.stream.on('error', this.#onError);
    transport.stream.on('end', this.#onEnd);
    transport.stream.on('close', this.#onEnd);
    this.#try(() => this.#advance(nothing));
    transport.receive((chunk) => {
      this.#try(() => this.#cutter.push(chunk));
    });
  }

  /** Resolves when TLS must begin, or when the negotiation is complete. */
  async next(): Promise<Outcome<T>> {
    while (this.#outcome === undefined && this.#failure === undefined)
      await new Promise<void>((resolve) => (this.#wake = resolve));
    if (this.#failure !== undefined) throw this.#failure;
    const outcome = this.#outcome!;
    if (outcome === 'tls') {
      this.detach();
      // Plain bytes after the server's consent are an injection: they did not come through TLS.
      const injected = this.#cutter.takeRest().length;
      if (injected > 0)
        throw protocolError(`${this.#name} sent ${injected} bytes in the clear after it agreed to TLS`);
    }
    return outcome;
  }

  fail(error: Error): void {
    this.#failure ??= error;
    this.#cutter.stop();
    this.#wake();
  }

  detach(): void {
    const { stream } = this.transport;
    stream.removeListener('end', this.#onEnd);
    stream.removeListener('close', this.#onEnd);
    // The error listener stays, so that a late error of an abandoned stream does not end the process.
  }

  #try(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.fail(toAgentError(error));
    }
  }

  #advance(input: Buffer): void {
    for (let result = this.#negotiation.next(input); ; result = this.#negotiation.next(nothing)) {
      if (result.done === true) this.#outcome = { value: result.value };
      else if (this.#step(result.value)) continue;
      if (this.#outcome !== undefined) this.#wake();
      return;
    }
  }

  /** Executes a step. Returns true if the negotiation can continue at once. */
  #step(step: Step): boolean {
    switch (step.do) {
      case 'send':
        this.transport.stream.write(step.bytes);
        return true;
      case 'read':
        this.during = step.during;
        this.#ended = step.ended;
        this.#cutter.wantBytes(step.length);
        return false;
      case 'tls':
        this.during = 'the TLS handshake';
        this.#outcome = 'tls';
        return false;
    }
  }

  readonly #onError = (error: Error): void => {
    const code = errnoCode(error);
    this.fail(
      this.#ended ??
        new AgentError(
          'NBD_CONNECTION_LOST',
          `${this.#name} broke off (${code ?? error.message}) while we were ${this.during}`,
          { cause: error },
        ),
    );
  };

  readonly #onEnd = (): void => {
    this.fail(
      this.#ended ??
        new AgentError(
          'NBD_CONNECTION_LOST',
          `${this.#name} closed the connection while we were ${this.during}`,
          { hint: 'check the log of the server; it may have failed, or may not accept this machine' },
        ),
    );
  };
}

const nothing = Buffer.alloc(0);
