/**
 * Runs a negotiation (negotiate.ts) over a transport: sends what it says, cuts what arrives, upgrades to TLS,
 * and keeps the time.
 */
import { AgentError, errnoCode, toAgentError } from '../../base/errors.ts';
import { StreamCutter } from '../protocol/stream-cutter.ts';
import { protocolError } from '../protocol/wire.ts';
import type { Negotiation, Step } from './negotiate.ts';
import type { Transport } from './transport.ts';

export interface HandshakeOptions {
  /** What to call the server in messages. */
  readonly name: string;
  /** For the whole handshake. */
  readonly timeoutMs: number;
  readonly signal?: AbortSignal | undefined;
  /** Upgrades to TLS; absent where the address says none. */
  readonly upgrade?: ((transport: Transport, signal: AbortSignal) => Promise<Transport>) | undefined;
}

export interface HandshakeResult<T> {
  readonly value: T;
  /** The transport to go on with. */
  readonly transport: Transport;
  /** What arrived after the handshake; to be asked for once, by whoever calls `transport.receive` next. */
  readonly takeRest: () => Buffer;
}

/**
 * Resolves with what the negotiation returns. Rejects with what it throws, NBD_CONNECTION_LOST (ended or timed
 * out), CANCELLED; the stream is then destroyed.
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
    // What was written last (NBD_OPT_ABORT) still goes out.
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
    { hint: 'check that an NBD server listens there; its limit of clients may be reached' },
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

  /** Goes on over this transport; the negotiation continues with its next step. */
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

  /** Resolves when TLS is to begin or everything is agreed. */
  async next(): Promise<Outcome<T>> {
    while (this.#outcome === undefined && this.#failure === undefined)
      await new Promise<void>((resolve) => (this.#wake = resolve));
    if (this.#failure !== undefined) throw this.#failure;
    const outcome = this.#outcome!;
    if (outcome === 'tls') {
      this.detach();
      // Whatever came in the clear behind the server's consent did not come from inside TLS.
      const injected = this.#cutter.takeRest().length;
      if (injected > 0)
        throw protocolError(`${this.#name} sent ${injected} bytes in the clear after agreeing to TLS`);
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
    // The error listener stays: a late error of a stream that is given up must not end the process.
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

  /** True where the negotiation can go on at once. */
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
          { hint: 'look into the log of the server; it may not let this machine in, or have failed' },
        ),
    );
  };
}

const nothing = Buffer.alloc(0);
