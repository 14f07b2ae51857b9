/** What frozen passes found to be sent, kept in memory until the thaw; bounded, together with the other threads'. */
import { AgentError } from '../../base/errors.ts';
import type { Control } from './control.ts';

export interface SpoolEntry {
  readonly offset: number;
  readonly length: number;
  /** Undefined for zeros. */
  readonly data: Buffer | undefined;
}

export class Spool {
  readonly #control: Control;
  readonly #limit: number;
  #entries: SpoolEntry[] = [];
  #prints: { unit: number; print: Buffer }[] = [];
  #held = 0;

  /** `limit`: bytes of data that all threads may keep; zeros cost nothing. */
  constructor(control: Control, limit: number) {
    this.#control = control;
    this.#limit = limit;
  }

  get entries(): readonly SpoolEntry[] {
    return this.#entries;
  }

  /** Fingerprints of the units that the entries belong to, to be written when these have been sent. */
  get prints(): readonly { unit: number; print: Buffer }[] {
    return this.#prints;
  }

  /** Copies `data` (or notes zeros); false where there is no room for it. */
  keep(offset: number, data: Uint8Array, zero: boolean): boolean {
    if (!zero && !this.#control.reserve(data.length, this.#limit)) return false;
    this.#entries.push({ offset, length: data.length, data: zero ? undefined : Buffer.from(data) });
    if (!zero) this.#held += data.length;
    return true;
  }

  keepPrint(print: { unit: number; print: Buffer } | undefined): void {
    if (print !== undefined) this.#prints.push(print);
  }

  clear(): void {
    this.#entries = [];
    this.#prints = [];
    this.#control.giveBack(this.#held);
    this.#held = 0;
  }
}

/** For a target that takes nothing meanwhile: what it notes lies in files, and those may lie on what is frozen. */
export function spoolFull(target: string, bytes: number): AgentError {
  return new AgentError(
    'FREEZE_TOO_LONG',
    `more than the ${bytes} bytes that memory may hold have changed since the last pass, and ${target} takes nothing ` +
      'while a filesystem is frozen',
    { hint: 'start the backup again when the device is less busy' },
  );
}
