/**
 * Reads the fields of a vault's JSON documents. A missing field or one of another type makes the document damaged.
 * Unknown fields are ignored, because later versions may add some.
 */
import { AgentError } from '../base/errors.ts';

export class Fields {
  readonly #values: Readonly<Record<string, unknown>>;
  /** The document and the place in it: `points/… of /mnt/vault`, `… devices[0]`. */
  readonly #where: string;

  /** Throws VAULT_DAMAGED if the value is not an object. */
  constructor(value: unknown, where: string) {
    if (!isObject(value)) throw new AgentError('VAULT_DAMAGED', `${where} is not an object`);
    this.#values = value;
    this.#where = where;
  }

  text(name: string, pattern?: RegExp): string {
    const value = this.#values[name];
    if (typeof value !== 'string' || pattern?.test(value) === false) throw this.wrong(name);
    return value;
  }

  choice<T extends string>(name: string, choices: readonly T[]): T {
    const value = choices.find((each) => each === this.#values[name]);
    if (value === undefined) throw this.wrong(name);
    return value;
  }

  /** Returns an integer from `least` to `most`. */
  integer(name: string, least = 0, most: number = Number.MAX_SAFE_INTEGER): number {
    const value = this.number(name, least, most);
    if (!Number.isSafeInteger(value)) throw this.wrong(name);
    return value;
  }

  number(name: string, least: number, most: number): number {
    const value = this.#values[name];
    if (typeof value !== 'number' || !(value >= least && value <= most)) throw this.wrong(name);
    return value;
  }

  boolean(name: string): boolean {
    const value = this.#values[name];
    if (typeof value !== 'boolean') throw this.wrong(name);
    return value;
  }

  /** Returns a time in the form of `Date.toISOString`. */
  time(name: string): string {
    const value = this.text(name, timePattern);
    if (Number.isNaN(Date.parse(value))) throw this.wrong(name);
    return value;
  }

  /** Returns an object without checking its fields. */
  object(name: string): Readonly<Record<string, unknown>> {
    const value = this.#values[name];
    if (!isObject(value)) throw this.wrong(name);
    return value;
  }

  fields(name: string): Fields {
    return new Fields(this.#values[name], `${this.#where}: ${name}`);
  }

  list<T>(name: string, read: (each: Fields) => T): T[] {
    return this.values(name).map((value, index) =>
      read(new Fields(value, `${this.#where}: ${name}[${index}]`)),
    );
  }

  values(name: string): readonly unknown[] {
    const value = this.#values[name];
    if (!Array.isArray(value)) throw this.wrong(name);
    return value as readonly unknown[];
  }

  isNull(name: string): boolean {
    return this.#values[name] === null;
  }

  has(name: string): boolean {
    return this.#values[name] !== undefined;
  }

  wrong(name: string): AgentError {
    const value = this.#values[name];
    const shown = value === undefined ? 'is missing' : `is ${shorten(JSON.stringify(value))}`;
    return new AgentError('VAULT_DAMAGED', `${this.#where}: ${name} ${shown}`);
  }
}

const timePattern = /^[+-]?\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;

function shorten(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}…` : text;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
