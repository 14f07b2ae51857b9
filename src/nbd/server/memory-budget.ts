/**
 * The memory budget for the payloads of all connections of one thread. Each connection has a small allowance of its own, so
 * that small requests never wait for other clients. Larger requests share the rest in the order of their arrival. A client
 * is dropped if it keeps others waiting and transfers almost nothing for some time. Otherwise a few clients that do not read
 * could hold all the memory.
 */
import { KiB, MiB } from '../../base/bytes.ts';

export interface BudgetHolder {
  /** Bytes that this connection has sent and received so far. */
  readonly moved: number;
  /** The client must send or receive data before memory is freed. */
  readonly waitsForClient: boolean;
  /** Memory may be available now: ask again. */
  wake(): void;
  cutOff(error: Error): void;
}

export interface BudgetOptions {
  /** Bytes that larger requests share. */
  readonly shared?: number;
  /** Bytes of the connection's own allowance. */
  readonly own?: number;
  /** Milliseconds in which a client must transfer `leastMoved` bytes while others wait. */
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
    // A single request may be larger than the whole budget.
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
    // If the first one got its memory, there may be memory for the next one.
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
          new Error(
            `transferred less than ${leastMoved / KiB} KiB in ${Math.round(idleMs)} ms while other clients wait`,
          ),
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
  /** Called when the connection waits no longer. */
  readonly served: () => void;
  readonly leave: () => void;
}

/** The share of one connection. */
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

  /** Takes bytes for one request, to be given back. Returns undefined if the connection must wait until it is woken. */
  take(bytes: number): { give(): void } | undefined {
    if (this.#own + bytes <= this.#ledger.own) {
      this.#own += bytes;
      // If this connection was waiting, the next one must not wait behind it any more.
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

  /** The connection has ended. Its requests still give back their memory. */
  leave(): void {
    this.#ledger.leave();
  }

  /** Returns for how long the client has kept others waiting and transferred almost nothing, milliseconds. */
  look(now: number, how: 'begin' | 'waits' | 'holds'): number {
    const { moved, waitsForClient } = this.holder;
    // A waiting connection counts too: its client may have to read replies first.
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
