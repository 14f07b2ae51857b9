/**
 * The sending half of a copying thread. It has a fixed set of aligned buffers. A buffer is free again when all requests
 * from it are confirmed. Zeros are joined to long runs. The first failure is kept, whatever other requests are under
 * way.
 */
import type { Bitmap } from '../../base/bitmap.ts';
import { alignUp } from '../../base/bytes.ts';
import { type AgentError, toAgentError } from '../../base/errors.ts';
import type { Target } from '../../block/target.ts';
import { alignedBuffer } from '../../linux/aligned.ts';
import { allMarked, clearShared, markShared } from './atomic-bitmap.ts';
import type { Control } from './control.ts';
import type { WitnessTaker } from './witnesses.ts';

/** Bytes per read and per write request. */
export const requestSize = 1024 * 1024;

/** A buffer, and how many requests still need it. The piece that is being split counts as one. */
export interface Slot {
  readonly buffer: Buffer;
  users: number;
}

export class TargetWriter {
  readonly #control: Control;
  readonly #thread: number;
  readonly #unconfirmed: Bitmap;
  readonly #targetZero: Bitmap;
  readonly #witnesses: WitnessTaker;
  readonly #free: Slot[];
  #target: Target;
  #underWay = 0;
  #failure: AgentError | undefined;
  #waiting: (() => void)[] = [];
  #zeroOffset = 0;
  #zeroLength = 0;

  constructor(
    target: Target,
    dependencies: {
      readonly control: Control;
      readonly thread: number;
      readonly unconfirmed: Bitmap;
      readonly targetZero: Bitmap;
      readonly witnesses: WitnessTaker;
      readonly depth: number;
    },
  ) {
    this.#target = target;
    this.#control = dependencies.control;
    this.#thread = dependencies.thread;
    this.#unconfirmed = dependencies.unconfirmed;
    this.#targetZero = dependencies.targetZero;
    this.#witnesses = dependencies.witnesses;
    this.#free = Array.from({ length: dependencies.depth }, () => ({
      buffer: alignedBuffer(requestSize),
      users: 0,
    }));
  }

  get target(): Target {
    return this.#target;
  }

  /** To be called after a reconnect, when no request is under way. */
  useTarget(target: Target): void {
    this.#target = target;
  }

  /** Forgets the failure of an earlier run. */
  begin(): void {
    this.#failure = undefined;
    this.#zeroLength = 0;
  }

  fail(error: unknown): void {
    this.#failure ??= toAgentError(error);
  }

  throwIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Returns a buffer as soon as one is free. The caller gives it back with `release`. */
  async slot(): Promise<Slot> {
    while (this.#free.length === 0) {
      await this.#nextCompletion();
      this.throwIfFailed();
    }
    const slot = this.#free.pop()!;
    slot.users = 1;
    return slot;
  }

  release(slot: Slot): void {
    if (--slot.users > 0) return;
    this.#free.push(slot);
    this.#wakeUp();
  }

  /** Sends `length` bytes at `from` of the slot to `offset` of the target. Does not wait. */
  data(slot: Slot, from: number, offset: number, length: number): void {
    slot.users++;
    this.#send(slot.buffer, from, offset, length, () => this.release(slot));
  }

  /** Sends bytes that the caller owns and does not change. Waits while the target has enough requests. */
  async owned(data: Buffer, offset: number): Promise<void> {
    while (this.#underWay >= this.#target.depth) {
      await this.#nextCompletion();
      this.throwIfFailed();
    }
    const room = alignUp(data.length, this.#target.minimumBlock);
    const whole = room === data.length ? data : Buffer.concat([data], room);
    this.#send(whole, 0, offset, data.length, () => undefined);
  }

  #send(buffer: Buffer, from: number, offset: number, length: number, done: () => void): void {
    this.#witnesses.sends(offset, buffer.subarray(from, from + length));
    let end = from + length;
    if (offset + length === this.#unconfirmed.size) {
      // The device's tail may not be a multiple of the target's block. The target's bytes after it belong to no device.
      const padded = from + alignUp(length, this.#target.minimumBlock);
      buffer.fill(0, end, padded);
      end = padded;
    }
    markShared(this.#unconfirmed, offset, length);
    clearShared(this.#targetZero, offset, length);
    this.#control.add(this.#thread, 'sent', length);
    this.#watch(this.#write(offset, buffer.subarray(from, end)), length, done);
  }

  /**
   * Splits the data if the target takes less at once. Settles when all requests have settled, so that the buffer is
   * free.
   */
  async #write(offset: number, data: Buffer): Promise<void> {
    const most = this.#target.maximumPayload;
    if (data.length <= most) return this.#target.write(offset, data);
    const requests: Promise<void>[] = [];
    for (let at = 0; at < data.length; at += most)
      requests.push(this.#target.write(offset + at, data.subarray(at, at + most)));
    const failed = (await Promise.allSettled(requests)).find(({ status }) => status === 'rejected');
    if (failed?.status === 'rejected') throw failed.reason;
  }

  /** Returns true if the range is known to read as zeros at the target already, and counts it as done. */
  areZero(offset: number, length: number): boolean {
    if (!allMarked(this.#targetZero, offset, length)) return false;
    this.#witnesses.zeroes(offset, length);
    markShared(this.#unconfirmed, offset, length);
    this.#control.add(this.#thread, 'zero', length);
    this.#control.add(this.#thread, 'done', length);
    return true;
  }

  /** Makes the range zero at the target. The request is sent later, together with its neighbours. */
  zeroes(offset: number, length: number): void {
    this.#witnesses.zeroes(offset, length);
    // Marked now and not when the run is sent: zeros that a failure leaves unsent must be sent again.
    markShared(this.#unconfirmed, offset, length);
    if (this.#zeroOffset + this.#zeroLength !== offset) this.sendZeroes();
    if (this.#zeroLength === 0) this.#zeroOffset = offset;
    this.#zeroLength += length;
  }

  sendZeroes(): void {
    const [offset, length] = [this.#zeroOffset, this.#zeroLength];
    this.#zeroLength = 0;
    if (length === 0) return;
    const tail = offset + length === this.#unconfirmed.size;
    const whole = tail ? alignUp(length, this.#target.minimumBlock) : length;
    this.#control.add(this.#thread, 'zero', length);
    this.#watch(this.#target.writeZeroes(offset, whole, { hole: true }), length, () => undefined);
  }

  /** Resolves when no request is under way any more, failed or not. */
  async settled(): Promise<void> {
    while (this.#underWay > 0) await this.#nextCompletion();
  }

  #watch(request: Promise<void>, length: number, done: () => void): void {
    this.#underWay++;
    request
      .then(
        () => this.#control.add(this.#thread, 'done', length),
        (error: unknown) => this.fail(error),
      )
      .finally(() => {
        this.#underWay--;
        done();
        this.#wakeUp();
      })
      .catch(() => undefined);
  }

  #wakeUp(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const wake of waiting) wake();
  }

  #nextCompletion(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
    });
  }
}
