/**
 * The files of one trace in debugfs/block/DISK (kernel/trace/blktrace.c, kernel/relay.c). There is a stream of records
 * for each processor, the counter of records that found their buffer full, and a file whose lines come back as records.
 * All calls return at once. Only the reader's thread uses them.
 */
import { closeSync, constants, existsSync, openSync, readdirSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';

export interface RelayFiles {
  /** Processors whose streams are open. */
  readonly processors: readonly number[];
  /** Opens the streams of processors that came online in the meantime. */
  openNew(): void;
  /** Returns the number of bytes put into `into`; 0 if there are none now. Throws if the trace is gone. */
  read(processor: number, into: Buffer): number;
  /** Writes a message record into the stream of the processor that this thread runs on, if the trace runs. */
  message(text: string): void;
  /** Records lost because a buffer was full. */
  dropped(): number;
  close(): void;
}

export class DebugfsRelayFiles implements RelayFiles {
  readonly #folder: string;
  readonly #streams = new Map<number, number>();
  readonly #message: number;
  readonly #dropped: number;
  readonly #text = Buffer.alloc(32);

  /** Throws the errors of open(2): EPERM under lockdown, ENOENT if there is no trace. */
  constructor(folder: string) {
    this.#folder = folder;
    this.#dropped = openSync(join(folder, 'dropped'), constants.O_RDONLY);
    try {
      this.#message = openSync(join(folder, 'msg'), constants.O_WRONLY);
    } catch (thrown) {
      closeSync(this.#dropped);
      throw thrown;
    }
    try {
      this.openNew();
    } catch (thrown) {
      this.close();
      throw thrown;
    }
  }

  get processors(): readonly number[] {
    return [...this.#streams.keys()];
  }

  openNew(): void {
    for (const name of readdirSync(this.#folder)) {
      const processor = Number(/^trace(\d+)$/.exec(name)?.[1] ?? -1);
      if (processor < 0 || this.#streams.has(processor)) continue;
      const path = join(this.#folder, name);
      this.#streams.set(processor, openSync(path, constants.O_RDONLY | constants.O_NONBLOCK));
    }
  }

  read(processor: number, into: Buffer): number {
    try {
      return readSync(this.#streams.get(processor)!, into, 0, into.length, null);
    } catch (thrown) {
      if ((thrown as NodeJS.ErrnoException).code === 'EAGAIN') return 0;
      throw thrown;
    }
  }

  message(text: string): void {
    writeSync(this.#message, text);
  }

  dropped(): number {
    const bytes = readSync(this.#dropped, this.#text, 0, this.#text.length, 0);
    return Number(this.#text.toString('latin1', 0, bytes));
  }

  close(): void {
    for (const fd of [...this.#streams.values(), this.#message, this.#dropped])
      try {
        closeSync(fd);
      } catch {
        // This error has no effect, and the other files must be closed too.
      }
    this.#streams.clear();
  }
}

/**
 * Returns the folder of a trace. The kernel uses the name that BLKTRACESETUP returned, with `_` instead of slashes. For
 * disks with a slash in their name (cciss!c0d0) it uses the name in sysfs.
 */
export function traceFolder(debugfs: string, ...names: readonly string[]): string | undefined {
  return names
    .map((name) => join(debugfs, 'block', name))
    .find((each) => existsSync(join(each, 'trace0')) || existsSync(join(each, 'dropped')));
}
