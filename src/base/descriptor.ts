/**
 * A file descriptor with an owner. The kernel gives the number of a closed descriptor to the next file that is
 * opened, so a number that is kept after the close may reach another file. This one refuses instead.
 */
import { closeSync } from 'node:fs';
import { AgentError } from './errors.ts';

export class Descriptor {
  /** For messages. */
  readonly name: string;
  readonly #fd: number;
  #closed = false;

  /** Takes over `fd`. */
  constructor(fd: number, name: string) {
    this.#fd = fd;
    this.name = name;
  }

  /** For the one call that it is passed to; do not keep it. Throws INTERNAL after `close`. */
  get fd(): number {
    if (this.#closed) throw new AgentError('INTERNAL', `${this.name} is used after it was closed`);
    return this.#fd;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Closes the descriptor. Further calls do nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeSync(this.#fd);
  }
}
