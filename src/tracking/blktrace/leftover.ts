/**
 * Records of our own traces, so that the next daemon can tear down what a killed one left. A trace in the
 * kernel has no owner; what proves it ours is that its files in debugfs are the very ones that we made: the
 * same inode, made at the same time, in the same boot, by a process that lives no more.
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
  /** Of the trace's file `msg`. */
  readonly inode: number;
  readonly made: number;
  /** False once the daemon ended the trace in order; what it knew is gone all the same. */
  readonly running: boolean;
}

export class TraceRecords {
  readonly #directory: string;

  constructor(runDirectory: string) {
    this.#directory = join(runDirectory, 'blktrace');
  }

  /** Notes the trace that this process has just made. Throws where its files are not there. */
  async note(disk: string, folder: string): Promise<void> {
    const owner = await identifyProcess(process.pid);
    if (owner === undefined) throw new Error('this process is not in /proc');
    await this.#write(disk, { boot: await bootId(), owner, ...(await identify(folder)), running: true });
  }

  /** The trace has been torn down. Its record tells the next daemon that there was one. */
  async ended(disk: string): Promise<void> {
    const record = await this.#read(disk);
    if (record !== undefined) await this.#write(disk, { ...record, running: false });
  }

  /**
   * What is known of an earlier trace in this boot: `ours` where the one that is set up now in `folder` is the
   * one that a process which lives no more made; `ended` where it was torn down; undefined where there is
   * nothing, or where its owner lives.
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

  /** True where the trace that is set up now in `folder` is the one that this process made. */
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
