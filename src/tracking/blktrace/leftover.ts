/**
 * Records of our own traces, so that the next daemon can tear down a trace that a killed one left. A trace in the
 * kernel has no owner. It is ours if its files in debugfs are the same files that we made. That means the same inode, made
 * at the same time, in the same boot, by a process that no longer exists.
 *
 *     RUN_DIR/blktrace/MAJOR-MINOR.json
 */
import { mkdir, readFile, rename, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writingAsync } from '../../base/files.ts';
import { bootId, identifyProcess, isAlive, type ProcessIdentity } from '../../linux/process.ts';

interface TraceRecordFile {
  readonly boot: string;
  readonly owner: ProcessIdentity;
  /** Inode of the trace's file `msg`. */
  readonly inode: number;
  readonly made: number;
  /** False after the daemon ended the trace in order. Its map is gone in either case. */
  readonly running: boolean;
}

export class TraceRecords {
  readonly #directory: string;

  constructor(runDirectory: string) {
    this.#directory = join(runDirectory, 'blktrace');
  }

  /** Records the trace that this process has just made. Throws if the trace's files are missing. */
  async note(disk: string, folder: string): Promise<void> {
    const owner = await identifyProcess(process.pid);
    if (owner === undefined) throw new Error('this process is not in /proc');
    await this.#write(disk, { boot: await bootId(), owner, ...(await identify(folder)), running: true });
  }

  /** Records that the trace has been torn down, so that the next daemon knows that there was one. */
  async ended(disk: string): Promise<void> {
    const record = await this.#read(disk);
    if (record !== undefined) await this.#write(disk, { ...record, running: false });
  }

  /**
   * Returns what the record says of an earlier trace in this boot. `ours`: the present trace in `folder` was made by a
   * process that no longer exists. `ended`: it was torn down. Undefined: there is no record, or its owner is alive.
   */
  async earlier(disk: string, folder: string | undefined): Promise<'ours' | 'ended' | undefined> {
    const record = await this.#read(disk);
    if (record === undefined || record.boot !== (await bootId())) return undefined;
    if (await this.#isOwn(record)) return undefined;
    if (!record.running) return 'ended';
    if (await isAlive(record.owner)) return undefined;
    const now = folder === undefined ? undefined : await identify(folder).catch(() => undefined);
    return now?.inode === record.inode && now.made === record.made ? 'ours' : 'ended';
  }

  /** Returns true if this process made the present trace in `folder`. */
  async isMine(disk: string, folder: string): Promise<boolean> {
    const record = await this.#read(disk);
    const now = await identify(folder).catch(() => undefined);
    if (record === undefined || now === undefined || !record.running) return false;
    return (await this.#isOwn(record)) && now.inode === record.inode && now.made === record.made;
  }

  async #isOwn({ owner }: TraceRecordFile): Promise<boolean> {
    const own = await identifyProcess(process.pid);
    return own?.pid === owner.pid && own.startTime === owner.startTime;
  }

  async #read(disk: string): Promise<TraceRecordFile | undefined> {
    try {
      return JSON.parse(await readFile(this.#path(disk), 'utf8')) as TraceRecordFile;
    } catch {
      return undefined;
    }
  }

  async #write(disk: string, record: TraceRecordFile): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    const path = this.#path(disk);
    await writingAsync(path, async () => {
      await writeFile(`${path}.new`, JSON.stringify(record));
      await rename(`${path}.new`, path);
    });
  }

  #path(disk: string): string {
    return join(this.#directory, `${disk.replace(':', '-')}.json`);
  }
}

async function identify(folder: string): Promise<{ inode: number; made: number }> {
  const { ino, ctimeMs } = await stat(join(folder, 'msg'));
  return { inode: ino, made: ctimeMs };
}
