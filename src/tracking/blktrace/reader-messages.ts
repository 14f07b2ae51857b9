/** The messages between the tracker and the reader's thread. All of them can be cloned to a thread. */
import type { Following } from './follower.ts';
import type { DeviceIdentity } from '../device-identity.ts';
import type { TrackedDevice } from '../tracker.ts';

export interface TracedDisk {
  /** `MAJOR:MINOR` */
  readonly disk: string;
  /** For messages: `/dev/sda`. */
  readonly name: string;
  /** Its folder in debugfs. */
  readonly folder: string;
  readonly following: Following;
  /** Bytes of the kernel's buffers for each processor. */
  readonly capacity: number;
}

export interface AddedDevice {
  readonly disk: string;
  /** `MAJOR:MINOR` */
  readonly key: string;
  readonly device: TrackedDevice;
  readonly identity: DeviceIdentity;
  /** Bytes per bit. */
  readonly unit: number;
  readonly maps: readonly [SharedArrayBuffer, SharedArrayBuffer];
  /** Two Int32: marked units, and KiB of memory beside the maps. */
  readonly gauges: SharedArrayBuffer;
}

export interface TakenMap {
  readonly generation: number;
  /** Holds the taken map until the commit. */
  readonly map: SharedArrayBuffer;
}

export interface ReaderProtocol {
  /** Each call fails if the trace of the disk is lost. */
  readonly calls: {
    /** Opens the files of a trace and reads them from now on. */
    openDisk: { args: TracedDisk; result: undefined };
    closeDisk: { args: { disk: string }; result: undefined };
    add: { args: AddedDevice; result: undefined };
    remove: { args: { disk: string; key: string }; result: undefined };
    /** Reads all records up to now and returns the map. `settled`: see `Follower.take`. */
    take: { args: { disk: string; key: string; settled: boolean }; result: TakenMap };
  };
  readonly notices: {
    /** The taken map of this generation is safe with the caller. */
    commit: { readonly disk: string; readonly key: string; readonly generation: number };
    /** Closes all traces. The thread then ends. */
    end: undefined;
  };
  readonly events: {
    /** The trace of a disk is lost and its files are closed. With a key: one device of the disk has changed. */
    lost: { readonly disk: string; readonly key?: string; readonly reason: string };
  };
}
