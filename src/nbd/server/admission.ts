/**
 * Who may connect. Clients that have chosen an export count against the limit of connections; those that still
 * negotiate have a limit of their own, so that clients who say nothing, and proved nothing, keep no other out. If
 * that limit is reached, the oldest of the address that has most of them makes room.
 */

/** Connections that may negotiate at the same time. */
export const maximumNegotiating = 64;

export class Admission<Id> {
  readonly #maximum: number;
  readonly #maximumNegotiating: number;
  /** By id, in the order of arrival. */
  readonly #negotiating = new Map<Id, string>();
  readonly #entered = new Set<Id>();

  constructor(maximum: number, mostNegotiating = maximumNegotiating) {
    this.#maximum = maximum;
    this.#maximumNegotiating = mostNegotiating;
  }

  /** A connection from the address has arrived: it is refused, or is in, perhaps in the place of another. */
  arrive(id: Id, address: string): 'refused' | { readonly drop: Id | undefined } {
    if (this.#entered.size >= this.#maximum) return 'refused';
    const drop = this.#negotiating.size >= this.#maximumNegotiating ? this.#oldestOfMost() : undefined;
    if (drop !== undefined) this.left(drop);
    this.#negotiating.set(id, network(address));
    return { drop };
  }

  /** The client has chosen an export. False: there are too many already. */
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

/** One machine has all of a /64 of IPv6. */
function network(address: string): string {
  return address.includes(':') && !address.includes('.') ? address.split(':').slice(0, 4).join(':') : address;
}
