/**
 * The base of targets that change how another one behaves: every request passes through `around`, everything
 * else is the inner target's.
 */
import type { Extent } from '../base/extents.ts';
import type { Target, TargetAbilities } from './target.ts';

export interface TargetRequest {
  readonly kind: 'write' | 'writeZeroes' | 'trim' | 'flush' | 'read';
  readonly offset: number;
  readonly length: number;
}

export abstract class WrappedTarget implements Target {
  protected readonly inner: Target;

  constructor(inner: Target) {
    this.inner = inner;
  }

  /** Does what it likes before and after `request()`, which carries the request out. */
  protected abstract around<T>(what: TargetRequest, request: () => Promise<T>): Promise<T>;

  get name(): string {
    return this.inner.name;
  }
  get size(): number {
    return this.inner.size;
  }
  get readOnly(): boolean {
    return this.inner.readOnly;
  }
  get abilities(): TargetAbilities {
    return this.inner.abilities;
  }
  get minimumBlock(): number {
    return this.inner.minimumBlock;
  }
  get maximumPayload(): number {
    return this.inner.maximumPayload;
  }
  get depth(): number {
    return this.inner.depth;
  }

  write(offset: number, data: Uint8Array): Promise<void> {
    const what = { kind: 'write', offset, length: data.length } as const;
    return this.around(what, () => this.inner.write(offset, data));
  }

  writeZeroes(offset: number, length: number, options: { hole: boolean }): Promise<void> {
    const what = { kind: 'writeZeroes', offset, length } as const;
    return this.around(what, () => this.inner.writeZeroes(offset, length, options));
  }

  trim(offset: number, length: number): Promise<void> {
    return this.around({ kind: 'trim', offset, length }, () => this.inner.trim(offset, length));
  }

  flush(): Promise<void> {
    return this.around({ kind: 'flush', offset: 0, length: 0 }, () => this.inner.flush());
  }

  read(offset: number, length: number): Promise<Uint8Array> {
    return this.around({ kind: 'read', offset, length }, () => this.inner.read(offset, length));
  }

  zeroExtents(offset: number, length: number): AsyncIterable<Extent> {
    return this.inner.zeroExtents(offset, length);
  }

  close(): Promise<void> {
    return this.inner.close();
  }

  destroy(): void {
    this.inner.destroy();
  }
}
