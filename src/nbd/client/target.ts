/**
 * An NBD export as a `Target` over one connection. Requests are adapted to the limits of the server.
 */
import { MiB, GiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import { inParallel } from '../../base/in-parallel.ts';
import type { Target, TargetAbilities } from '../../block/target.ts';
import {
  DEFAULT_MAX_PAYLOAD,
  NBD_CMD,
  NBD_CMD_FLAG,
  NBD_ERROR,
  NBD_FLAG,
  NBD_STATE,
  commandName,
} from '../protocol/constants.ts';
import type { Channel } from './channel.ts';
import type { Negotiated } from './negotiate.ts';
import { cutAt, inward } from './pieces.ts';
import { StatusBudget } from './status-budget.ts';
import { NbdRequestError, exportAdvice, nbdUserHint } from './refusals.ts';
import type { NbdAddress } from './uri.ts';

export interface WriteOptions {
  /** The write is durable when it is confirmed. Only if the target has `fua`. */
  readonly fua?: boolean;
}

export interface ZeroOptions extends WriteOptions {
  readonly hole: boolean;
  /** Fail with NOT_SUPPORTED rather than be as slow as writing zeros. Only if the target has `fastZero`. */
  readonly fast?: boolean;
}

/** The most bytes of a zero or trim request: a server without fast zeroing completes them well within the time limit. */
const HOLE_PIECE = GiB;
const ZERO_PIECE = 64 * MiB;
/** The most bytes of a block status request. */
const STATUS_PIECE = 2 * GiB;
const ZEROES_AT_ONCE = 4;

export class NbdTarget implements Target {
  readonly name: string;
  readonly address: NbdAddress;
  readonly size: number;
  readonly readOnly: boolean;
  readonly abilities: TargetAbilities;
  readonly minimumBlock: number;
  /** The server writes multiples of this without read-modify-write. Bytes. */
  readonly preferredBlock: number;
  readonly maximumPayload: number;
  readonly depth = 16;
  /** Single writes can be made durable (`WriteOptions.fua`). */
  readonly fua: boolean;
  readonly fastZero: boolean;
  readonly encrypted: boolean;
  /** The negotiated terms of the connection, for logs. */
  readonly negotiated: Negotiated;
  /** Advice for the operator if the target is read-only or empty, else undefined. */
  readonly advice: string | undefined;
  readonly #channel: Channel;
  readonly #statusBudget = new StatusBudget();
  /** The server has refused larger zero requests. */
  #zeroLimit = HOLE_PIECE;
  #zeroesRefused = false;

  constructor(channel: Channel, negotiated: Negotiated, address: NbdAddress, name: string) {
    const { flags, blockSizes } = negotiated;
    const has = (flag: number): boolean => (flags & NBD_FLAG.HAS_FLAGS) !== 0 && (flags & flag) !== 0;
    this.#channel = channel;
    this.name = name;
    this.address = address;
    this.negotiated = negotiated;
    this.encrypted = negotiated.encrypted;
    this.minimumBlock = blockSizes?.minimum ?? 1;
    this.preferredBlock = blockSizes?.preferred ?? 4096;
    this.maximumPayload = Math.min(blockSizes?.maximum ?? DEFAULT_MAX_PAYLOAD, DEFAULT_MAX_PAYLOAD);
    this.maximumPayload -= this.maximumPayload % this.minimumBlock;
    // Bytes after the last whole minimum block cannot be accessed.
    this.size = negotiated.size - (negotiated.size % this.minimumBlock);
    this.readOnly = has(NBD_FLAG.READ_ONLY);
    this.fua = has(NBD_FLAG.SEND_FUA);
    this.fastZero = has(NBD_FLAG.SEND_FAST_ZERO);
    this.abilities = {
      flush: has(NBD_FLAG.SEND_FLUSH),
      writeZeroes: has(NBD_FLAG.SEND_WRITE_ZEROES),
      trim: has(NBD_FLAG.SEND_TRIM),
      read: true,
      multiConnection: has(NBD_FLAG.CAN_MULTI_CONN),
      zeroMap: negotiated.allocationContext !== undefined,
    };
    this.advice = exportAdvice(this);
  }

  write(offset: number, data: Uint8Array, options: WriteOptions = {}): Promise<void> {
    const wrong = this.#checkWrite(NBD_CMD.WRITE, offset, data.length) ?? this.#checkPayload(data.length);
    if (wrong !== undefined) return Promise.reject(wrong);
    if (data.length === 0) return Promise.resolve();
    return this.#channel.submit(NBD_CMD.WRITE, this.#fua(options), offset, data.length, data);
  }

  async writeZeroes(offset: number, length: number, options: ZeroOptions): Promise<void> {
    const wrong = this.#checkWrite(NBD_CMD.WRITE_ZEROES, offset, length);
    if (wrong !== undefined) throw wrong;
    if (options.fast === true && !this.fastZero)
      throw new AgentError('NOT_SUPPORTED', `${this.name} has no fast zeroing`);
    const piece = options.hole ? HOLE_PIECE : ZERO_PIECE;
    await inParallel(cutAt(offset, length, piece), ZEROES_AT_ONCE, (extent) => this.#zero(extent, options));
  }

  async trim(offset: number, length: number): Promise<void> {
    if (!this.abilities.trim) return;
    const range = inward(offset, length, this.minimumBlock);
    const wrong = this.#checkWrite(NBD_CMD.TRIM, range.offset, range.length);
    if (wrong !== undefined) throw wrong;
    await inParallel(cutAt(range.offset, range.length, HOLE_PIECE), ZEROES_AT_ONCE, (extent) =>
      this.#channel.submit(NBD_CMD.TRIM, 0, extent.offset, extent.length),
    );
  }

  flush(): Promise<void> {
    if (!this.abilities.flush)
      return this.#channel.failure === undefined ? Promise.resolve() : Promise.reject(this.#channel.failure);
    return this.#channel.submit(NBD_CMD.FLUSH, 0, 0, 0);
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const data = Buffer.allocUnsafeSlow(length);
    await this.readInto(offset, data);
    return data;
  }

  /** Fills `into` from `offset`, at most `maximumPayload` bytes. After a rejection, the contents are undefined. */
  readInto(offset: number, into: Uint8Array): Promise<void> {
    const wrong = this.#check(NBD_CMD.READ, offset, into.length) ?? this.#checkPayload(into.length);
    if (wrong !== undefined) return Promise.reject(wrong);
    if (into.length === 0) return Promise.resolve();
    const view = Buffer.from(into.buffer, into.byteOffset, into.length);
    return this.#channel.submit(NBD_CMD.READ, 0, offset, into.length, undefined, view);
  }

  async *zeroExtents(offset: number, length: number): AsyncGenerator<Extent> {
    if (!this.abilities.zeroMap) return;
    const wrong = this.#check(NBD_CMD.BLOCK_STATUS, offset, length);
    if (wrong !== undefined) throw wrong;
    const end = offset + length;
    let start = offset;
    let at = offset;
    while (at < end) {
      if (!this.#statusBudget.lasts()) return;
      const want = Math.min(STATUS_PIECE, end - at);
      const before = at;
      for (const descriptor of await this.#status(at, want)) {
        // The last descriptor may reach past the requested range.
        const next = Math.min(at + descriptor.length, end);
        if ((descriptor.flags & NBD_STATE.ZERO) === 0) {
          if (at > start) yield { offset: start, length: at - start };
          start = next;
        }
        at = next;
        if (at === end) break;
      }
      this.#statusBudget.answered(at - before, want);
    }
    if (at > start) yield { offset: start, length: at - start };
  }

  async close(): Promise<void> {
    await this.#channel.settled();
    await this.#channel.disconnect();
  }

  destroy(error = new AgentError('CANCELLED', `We closed the connection to ${this.name}`)): void {
    this.#channel.fail(error);
  }

  /** Returns the status of a range. If the server cannot tell, the range counts as not zero; the target still works. */
  async #status(offset: number, length: number): Promise<readonly { length: number; flags: number }[]> {
    try {
      return await this.#channel.blockStatus(offset, length);
    } catch (error) {
      if (error instanceof AgentError && error.code === 'NBD_SERVER_ERROR') return [{ length, flags: 0 }];
      throw error;
    }
  }

  async #zero(extent: Extent, options: ZeroOptions): Promise<void> {
    if (extent.length > this.#zeroLimit) {
      for (const piece of cutAt(extent.offset, extent.length, this.#zeroLimit))
        await this.#zero(piece, options);
      return;
    }
    if (!this.abilities.writeZeroes || this.#zeroesRefused) return this.#sendZeros(extent, options);
    const flags =
      (options.hole ? 0 : NBD_CMD_FLAG.NO_HOLE) |
      (options.fast === true ? NBD_CMD_FLAG.FAST_ZERO : 0) |
      this.#fua(options);
    try {
      await this.#channel.submit(NBD_CMD.WRITE_ZEROES, flags, extent.offset, extent.length);
    } catch (error) {
      if (!(error instanceof NbdRequestError) || !zeroRefusals.has(error.error)) throw error;
      if (options.fast === true)
        throw new AgentError('NOT_SUPPORTED', `${this.name} cannot zero this range fast`, { cause: error });
      // Try smaller pieces first, since the server may have an unadvertised limit. Then send zeros as data.
      if (extent.length > this.maximumPayload) this.#zeroLimit = this.maximumPayload;
      else this.#zeroesRefused = true;
      await this.#zero(extent, options);
    }
  }

  /** Sends zeros as data, for servers without NBD_CMD_WRITE_ZEROES. */
  async #sendZeros(extent: Extent, options: WriteOptions): Promise<void> {
    const most = Math.min(zeros.length, this.maximumPayload);
    await inParallel(cutAt(extent.offset, extent.length, most), ZEROES_AT_ONCE, (piece) =>
      this.write(piece.offset, zeros.subarray(0, piece.length), options),
    );
  }

  #fua(options: WriteOptions): number {
    return options.fua === true && this.fua ? NBD_CMD_FLAG.FUA : 0;
  }

  #checkWrite(command: number, offset: number, length: number): Error | undefined {
    if (this.readOnly)
      return new AgentError('TARGET_READ_ONLY', `Cannot write to ${this.name}: the export is read-only`, {
        hint: nbdUserHint,
      });
    return this.#check(command, offset, length);
  }

  #check(command: number, offset: number, length: number): RangeError | undefined {
    if (!(offset >= 0 && length >= 0 && offset + length <= this.size))
      return new RangeError(
        `${commandName(command)} of ${length} bytes at ${offset} is outside of ${this.name}, which has ${this.size} bytes`,
      );
    if (offset % this.minimumBlock !== 0 || length % this.minimumBlock !== 0)
      return new RangeError(
        `${commandName(command)} of ${length} bytes at ${offset}: ${this.name} takes only multiples of ${this.minimumBlock}`,
      );
    return undefined;
  }

  #checkPayload(length: number): RangeError | undefined {
    if (length <= this.maximumPayload) return undefined;
    return new RangeError(`${length} bytes at once; ${this.name} takes at most ${this.maximumPayload}`);
  }
}

/** The errors of servers for zero requests that are too large or not supported. */
const zeroRefusals: ReadonlySet<number> = new Set([NBD_ERROR.EINVAL, NBD_ERROR.EOVERFLOW, NBD_ERROR.ENOTSUP]);

const zeros = Buffer.alloc(MiB);
