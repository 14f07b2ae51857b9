/**
 * A file descriptor that throws if it is used after it was closed. The kernel gives the number of a closed descriptor
 * to the next file that is opened. Code that keeps the plain number could then use another file.
 */
import { closeSync } from 'node:fs';
import { AgentError } from './errors.ts';

export class Descriptor {
  /** For messages. */
  readonly name: string;
  readonly #fd: number;
  #closed = false;

  /** The object owns `fd` from now on. */
  constructor(fd: number, name: string) {
    this.#fd = fd;
    this.name = name;
  }

  /** The number, to pass to one call; do not keep it. Throws INTERNAL after `close`. */
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
