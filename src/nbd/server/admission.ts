/**
 * The limits of connections. Clients that have chosen an export count against one limit. Clients that still negotiate have
 * another limit, so that silent, unauthenticated clients cannot keep others out. If the second limit is reached, a client of
 * the address with the most negotiating clients is dropped: the oldest one.
 */

/** The most connections that may negotiate at the same time. */
export const maximumNegotiating = 64;

export class Admission<Id> {
  readonly #maximum: number;
  readonly #maximumNegotiating: number;
  /** Addresses by connection ID, in the order of arrival. */
  readonly #negotiating = new Map<Id, string>();
  readonly #entered = new Set<Id>();

  constructor(maximum: number, mostNegotiating = maximumNegotiating) {
    this.#maximum = maximum;
    this.#maximumNegotiating = mostNegotiating;
  }

  /** Refuses or admits a new connection. If `drop` is set, the caller must drop that connection to make room. */
  arrive(id: Id, address: string): 'refused' | { readonly drop: Id | undefined } {
    if (this.#entered.size >= this.#maximum) return 'refused';
    const drop = this.#negotiating.size >= this.#maximumNegotiating ? this.#oldestOfMost() : undefined;
    if (drop !== undefined) this.left(drop);
    this.#negotiating.set(id, network(address));
    return { drop };
  }

  /** Notes that the client has chosen an export. Returns false if the limit is reached. */
  enter(id: Id): boolean {
    if (!this.#negotiating.delete(id)) return false;
    if (this.#entered.size >= this.#maximum) return false;
    this.#entered.add(id);
    return true;
  }

  left(id: Id): void {
    this.#negotiating.delete(id);
    this.#entered.delete(id);
  }

  #oldestOfMost(): Id | undefined {
    const counts = new Map<string, number>();
    for (const address of this.#negotiating.values()) counts.set(address, (counts.get(address) ?? 0) + 1);
    const most = Math.max(...counts.values());
    for (const [id, address] of this.#negotiating) if (counts.get(address) === most) return id;
    return undefined;
  }
}

/** Returns the /64 network of an IPv6 address, since one machine can use all addresses in it. */
function network(address: string): string {
  return address.includes(':') && !address.includes('.') ? address.split(':').slice(0, 4).join(':') : address;
}
