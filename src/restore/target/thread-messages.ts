/** The messages between the coordinator and the restore threads. All are plain data. */
import type { Extent } from '../../base/extents.ts';
import type { ImageSpec } from '../image/open-image.ts';
import type { DestinationSpec } from './destination.ts';

export interface ThreadSetup {
  readonly image: ImageSpec;
  /** Undefined for threads that only read the image. */
  readonly destination: DestinationSpec | undefined;
  /** Number of concurrent jobs. */
  readonly lanes: number;
  /** Size of the thread's image cache, bytes. */
  readonly cacheBytes: number;
  /** One number. Not zero: the threads must stop. */
  readonly stop: SharedArrayBuffer;
}

/** A job. `offset` and `length` are in bytes; a range of data is at most `longestJob` long. */
export type Job =
  /** Makes a range of the destination equal to the image. */
  | {
      readonly do: 'copy';
      readonly offset: number;
      readonly length: number;
      /** Read the destination first, and write only the blocks that differ. */
      readonly compare: boolean;
      /** Write zeros for data that the vault has lost, and report them. */
      readonly salvage: boolean;
    }
  /** Makes a range read as zeros. If that is not possible quickly: writes zeros with `must`, else leaves the range. */
  | { readonly do: 'zero'; readonly offset: number; readonly length: number; readonly must: boolean }
  /** Compares a range of the destination with the digest of a copy job. */
  | { readonly do: 'verify'; readonly offset: number; readonly length: number; readonly digest: Uint8Array }
  /** Reads a range of the image only, and reports unreadable ranges. */
  | { readonly do: 'read'; readonly offset: number; readonly length: number }
  | { readonly do: 'write'; readonly offset: number; readonly data: Uint8Array }
  | { readonly do: 'flush' };

export interface Lost extends Extent {
  /** A text for the user. */
  readonly reason: string;
}

export interface JobResult {
  /** Bytes that were written, were equal already, were zeroed without a write, or were left unchanged. */
  readonly written?: number;
  readonly equal?: number;
  readonly zeroed?: number;
  readonly left?: number;
  /** Digest of the new contents of the range. A `zero` job returns it only if it wrote something. */
  readonly digest?: Uint8Array;
  readonly lost?: readonly Lost[];
  /** From `verify`: the destination differs from the data that was written. */
  readonly differs?: boolean;
}

export interface RestoreProtocol {
  readonly calls: {
    /** Opens the image and the destination. The first call. */
    open: { args: undefined; result: undefined };
    run: { args: Job; result: JobResult };
  };
  readonly notices: {
    /** Breaks the connections, so that calls which wait for them end. */
    abort: undefined;
    /** Closes everything. The thread then ends. */
    end: undefined;
  };
  readonly events: object;
}
