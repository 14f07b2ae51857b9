/**
 * The memory that the payloads of all connections of one thread may hold together. Each connection has a little of
 * its own, so that small requests never wait for other clients. Larger requests share the rest, first come, first
 * served. A client that keeps others waiting, and neither sends nor takes anything for a while, is cut off: without
 * that a few clients that do not read would hold all of it.
 */
import { KiB, MiB } from '../../base/bytes.ts';

export interface BudgetHolder {
  /** Bytes that this connection has moved so far, in either direction. */
  readonly moved: number;
  /** The client has to send or to take something before memory is given back. */
  readonly waitsForClient: boolean;
  /** Memory may be there now: ask again. */
  wake(): void;
  cutOff(error: Error): void;
}

export interface BudgetOptions {
  /** Bytes that larger requests share. */
  readonly shared?: number;
  /** Bytes that each connection has besides. */
  readonly own?: number;
  /** Milliseconds in which a client has to move `leastMoved` bytes while others wait. */
  readonly patienceMs?: number;
}

export const sharedBytes = 128 * MiB;
const leastMoved = 256 * KiB;

export class MemoryBudget {
  readonly #shared: number;
  readonly #own: number;
  readonly #patienceMs: number;
  readonly #shares = new Set<BudgetShare>();
  readonly #waiting: BudgetShare[] = [];
  #used = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: BudgetOptions = {}) {
    this.#shared = options.shared ?? sharedBytes;
    this.#own = options.own ?? MiB;
    this.#patienceMs = options.patienceMs ?? 3000;
  }

  /** Shared bytes that are held now. */
  get used(): number {
    return this.#used;
  }

  join(holder: BudgetHolder): BudgetShare {
    const share: BudgetShare = new BudgetShare(holder, {
      own: this.#own,
      take: (bytes) => this.#take(share, bytes),
      give: (bytes) => {
        this.#used -= bytes;
        this.#wakeFirst();
      },
      served: () => this.#served(share),
      leave: () => {
        this.#shares.delete(share);
        this.#forget(share);
        this.#wakeFirst();
      },
    });
    this.#shares.add(share);
    return share;
  }

  #take(share: BudgetShare, bytes: number): boolean {
    const first = this.#waiting[0];
    const itsTurn = first === undefined || first === share;
    // One request may be larger than all of it.
    if (itsTurn && (this.#used === 0 || this.#used + bytes <= this.#shared)) {
      this.#forget(share);
      this.#used += bytes;
      return true;
    }
    if (!this.#waiting.includes(share)) this.#waiting.push(share);
    this.#watch();
    return false;
  }

  #forget(share: BudgetShare): void {
    const at = this.#waiting.indexOf(share);
    if (at >= 0) this.#waiting.splice(at, 1);
    if (this.#waiting.length > 0) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #served(share: BudgetShare): void {
    const wasFirst = this.#waiting[0] === share;
    this.#forget(share);
    if (wasFirst) this.#wakeFirst();
  }

  #wakeFirst(): void {
    const first = this.#waiting[0];
    if (first === undefined) return;
    first.holder.wake();
    // Once it has what it wanted there may be more.
    if (this.#waiting[0] !== first) this.#wakeFirst();
  }

  #watch(): void {
    if (this.#timer !== undefined) return;
    for (const share of this.#shares) share.look(performance.now(), 'begin');
    this.#timer = setInterval(() => {
      const now = performance.now();
      for (const share of this.#shares) {
        const idleMs = share.look(now, this.#waiting.includes(share) ? 'waits' : 'holds');
        if (idleMs < this.#patienceMs) continue;
        share.holder.cutOff(
          new Error(`moved less than ${leastMoved / KiB} KiB in ${Math.round(idleMs)} ms while others wait`),
        );
      }
    }, this.#patienceMs / 10);
    this.#timer.unref();
  }
}

interface Ledger {
  readonly own: number;
  readonly take: (bytes: number) => boolean;
  readonly give: (bytes: number) => void;
  /** It waits no longer. */
  readonly served: () => void;
  readonly leave: () => void;
}

/** What one connection holds. */
export class BudgetShare {
  readonly holder: BudgetHolder;
  readonly #ledger: Ledger;
  #own = 0;
  #shared = 0;
  #movedThen = 0;
  #since = 0;

  constructor(holder: BudgetHolder, ledger: Ledger) {
    this.holder = holder;
    this.#ledger = ledger;
  }

  /** Bytes for one request, to be given back; undefined if the connection has to wait until it is woken. */
  take(bytes: number): { give(): void } | undefined {
    if (this.#own + bytes <= this.#ledger.own) {
      this.#own += bytes;
      // It may have waited for this: whoever comes next must not wait behind it.
      this.#ledger.served();
      return once(() => (this.#own -= bytes));
    }
    if (!this.#ledger.take(bytes)) return undefined;
    this.#shared += bytes;
    return once(() => {
      this.#shared -= bytes;
      this.#ledger.give(bytes);
    });
  }

  /** The connection has ended. What it holds is given back by itself. */
  leave(): void {
    this.#ledger.leave();
  }

  /** Milliseconds for which the client has kept others waiting and moved next to nothing. */
  look(now: number, how: 'begin' | 'waits' | 'holds'): number {
    const { moved, waitsForClient } = this.holder;
    // One that waits counts too: its replies may be what it has to get rid of before it is its turn.
    const hinders = how === 'waits' || (how === 'holds' && this.#shared > 0);
    if (!hinders || !waitsForClient || moved - this.#movedThen >= leastMoved) {
      this.#movedThen = moved;
      this.#since = now;
    }
    return now - this.#since;
  }
}

function once(work: () => void): { give(): void } {
  let done = false;
  return {
    give: () => {
      if (done) return;
      done = true;
      work();
    },
  };
}
