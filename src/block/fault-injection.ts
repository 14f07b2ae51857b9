/** Sources and targets that fail where a test says so. */
import { type Clock, systemClock } from '../base/clock.ts';
import { AgentError } from '../base/errors.ts';
import type { Extent } from '../base/extents.ts';
import { readFailure } from './read-errors.ts';
import type { Source } from './source.ts';
import type { Target } from './target.ts';
import { type TargetRequest, WrappedTarget } from './wrapped-target.ts';

export interface TargetFaults {
  /** Which requests fail; the error is thrown instead of carrying them out. */
  readonly fail?: (what: TargetRequest, count: number) => Error | undefined;
  /** Milliseconds that each request waits before it is carried out. */
  readonly delayMs?: number;
  readonly clock?: Clock;
}

/** `count` in `fail` numbers the requests of all kinds from 0. */
export function faultyTarget(target: Target, faults: TargetFaults): Target {
  return new FaultyTarget(target, faults);
}

/** For `TargetFaults.fail`: every request that touches the byte fails. */
export function failingAt(offset: number): (what: TargetRequest) => Error | undefined {
  return (what) =>
    what.offset <= offset && offset < what.offset + what.length
      ? new AgentError('TARGET_WRITE_ERROR', `injected: ${what.kind} at ${what.offset}`)
      : undefined;
}

/** For `TargetFaults.fail`: the first `count` requests pass, all others fail. */
export function failingAfter(count: number): (what: TargetRequest, number: number) => Error | undefined {
  return (what, number) =>
    number >= count
      ? new AgentError('NBD_CONNECTION_LOST', `injected: ${what.kind} number ${number}`)
      : undefined;
}

class FaultyTarget extends WrappedTarget {
  readonly #faults: TargetFaults;
  #count = 0;

  constructor(inner: Target, faults: TargetFaults) {
    super(inner);
    this.#faults = faults;
  }

  protected override async around<T>(what: TargetRequest, request: () => Promise<T>): Promise<T> {
    const failure = this.#faults.fail?.(what, this.#count++);
    const delay = this.#faults.delayMs ?? 0;
    if (delay > 0) await (this.#faults.clock ?? systemClock).sleep(delay);
    if (failure !== undefined) throw failure;
    return request();
  }
}

export interface SourceFaults {
  /** Reads that touch these fail with DEVICE_READ_ERROR, as those of bad sectors do. */
  readonly bad?: readonly Extent[];
  /** Reads after this many fail with DEVICE_GONE. */
  readonly goneAfter?: number;
}

/** A source over `inner` that reads as a damaged disk does. */
export function faultySource(inner: Source, faults: SourceFaults): Source {
  let count = 0;
  return {
    name: inner.name,
    size: inner.size,
    sectorSize: inner.sectorSize,
    readAt: async (offset, length) => {
      if (count++ >= (faults.goneAfter ?? Infinity)) throw injected(inner.name, offset, length, 'ENXIO');
      if (
        faults.bad?.some((bad) => bad.offset < offset + length && offset < bad.offset + bad.length) === true
      )
        throw injected(inner.name, offset, length, 'EIO');
      return inner.readAt(offset, length);
    },
    close: () => inner.close(),
  };
}

/** What the kernel's own error would become. */
function injected(name: string, offset: number, length: number, code: string): unknown {
  return readFailure(name, offset, length, Object.assign(new Error(`injected ${code}`), { code }));
}
