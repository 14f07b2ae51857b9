/** What the restoring threads are asked, and what they answer. Everything is plain data. */
import type { ErrorDocument } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import type { ImageSpec } from '../image/open-image.ts';
import type { DestinationSpec } from './destination.ts';

export interface ThreadSetup {
  readonly image: ImageSpec;
  /** Undefined for threads that only read the image. */
  readonly destination: DestinationSpec | undefined;
  /** Jobs under way at once. */
  readonly lanes: number;
  /** Bytes of the image that the thread keeps. */
  readonly cacheBytes: number;
  /** One number: not zero where the threads are to end. */
  readonly stop: SharedArrayBuffer;
}

/** `offset` and `length` in bytes; the lengths of data are bounded by `longestJob`. */
export type Job =
  /** Makes the range of the destination equal to the image's. */
  | {
      readonly do: 'copy';
      readonly offset: number;
      readonly length: number;
      /** Read what is there first, and write what differs. */
      readonly compare: boolean;
      /** What the vault has lost becomes zeros, and is reported. */
      readonly salvage: boolean;
    }
  /** Makes the range read as zeros; where that is not quick, only if `must`, by writing what is not zero. */
  | { readonly do: 'zero'; readonly offset: number; readonly length: number; readonly must: boolean }
  /** Compares the destination with a digest that a copy gave. */
  | { readonly do: 'verify'; readonly offset: number; readonly length: number; readonly digest: Uint8Array }
  /** Reads the image alone, and reports what cannot be read. */
  | { readonly do: 'read'; readonly offset: number; readonly length: number }
  | { readonly do: 'write'; readonly offset: number; readonly data: Uint8Array }
  | { readonly do: 'flush' };

export interface Lost extends Extent {
  /** For people. */
  readonly reason: string;
}

export interface JobResult {
  /** Bytes written; found equal; made zero without writing them; left as they were. */
  readonly written?: number;
  readonly equal?: number;
  readonly zeroed?: number;
  readonly left?: number;
  /** Of what is in the range now; of `zero` only if anything was written. */
  readonly digest?: Uint8Array;
  readonly lost?: readonly Lost[];
  /** Of `verify`: what is there is not what was written. */
  readonly differs?: boolean;
}

export interface ThreadRequest {
  readonly id: number;
  readonly job: Job;
}

export type ThreadReply =
  | { readonly id: number; readonly result: JobResult }
  | { readonly id: number; readonly error: ErrorDocument }
  /** Once, when it is ready: what its destination turned out to be. */
  | { readonly ready: true };
