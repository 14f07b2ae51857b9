/**
 * A vault's objects as files of a directory, on a local filesystem or NFS. An object is written to `tmp/`, synced,
 * renamed into place, and its folder is synced. So it is either complete or absent, even after a power failure or
 * SIGKILL, and a reader with the old file open continues to read it. An object that must be new is linked into place
 * instead, which fails if the name exists. It uses no locks and no O_TMPFILE.
 *
 * A mount that vanished looks like an empty directory. So before an object is reported missing, the vault's marker
 * (`vault.json`) is checked.
 */
import { constants, type Stats } from 'node:fs';
import { type FileHandle, open, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { boundedCall } from '../../base/bounded-call.ts';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { freshBytes } from '../../base/random.ts';
import { directoryFailure } from './directory-errors.ts';
import { foreignNames, listObjects, listTemporary } from './directory-list.ts';
import { type Owner, give, giveFolder, ownerOf, withHeldFolder } from './directory-owner.ts';
import { directoryRoom, reserveName } from './directory-room.ts';
import {
  DurableFolders,
  FolderSync,
  makeDirectories,
  readRange,
  type WithinFolder,
  renameToNew,
  writeParts,
} from './durable.ts';
import {
  DAY_MS,
  type Cleaned,
  type CleanOptions,
  type GetOptions,
  type ListOptions,
  type ObjectData,
  type ObjectStore,
  type PutOptions,
  type Room,
  type StoreOptions,
  type StoredObject,
  checkKey,
  checkPrefix,
  checkRange,
  dataParts,
  expectSame,
  objectMissing,
  rangeWithin,
} from './object-store.ts';

export interface DirectoryStoreOptions {
  /** Creates a missing directory, and does not need the marker until it is written. */
  readonly create?: boolean | undefined;
  /** Key of the file that shows that the vault exists. Default: `vault.json`. */
  readonly marker?: string | undefined;
}

const FILE_MODE = 0o600;
const FOLDER_MODE = 0o700;
/** Time limit of the first access in milliseconds: an automounter or a sleeping disk may take long. */
const ROOT_MS = 60_000;
/** Maximum number of opens if a handle becomes stale (NFS). */
const OPENS = 3;

/**
 * Opens the store in the directory at `root`, an absolute path. Throws VAULT_NOT_FOUND, VAULT_DENIED, NO_ANSWER (its
 * filesystem hangs) and others.
 */
export async function openDirectoryStore(
  root: string,
  options: DirectoryStoreOptions = {},
): Promise<ObjectStore> {
  const marker = options.marker ?? 'vault.json';
  try {
    const before = await boundedCall('stat', root, () => stat(root), { limitMs: ROOT_MS }).catch(
      absentAsUndefined,
    );
    if (before === undefined && options.create === true) await makeDirectories(root, FOLDER_MODE);
    const found = before ?? (await stat(root).catch(absentAsUndefined));
    if (found === undefined)
      throw new AgentError('VAULT_NOT_FOUND', `The directory ${root} does not exist`, {
        hint: 'check that its filesystem is mounted, or run dattocli vault init to create a vault there',
      });
    if (!found.isDirectory()) throw new AgentError('VAULT_NOT_FOUND', `${root} is not a directory`);
    const marked = (await stat(join(root, marker)).catch(absentAsUndefined)) !== undefined;
    if (!marked && options.create !== true) throw unmarked(root, marker);
    return new DirectoryStore(root, marker, marked, ownerOf(found));
  } catch (thrown) {
    throw directoryFailure(root, 'opening it', thrown);
  }
}

class DirectoryStore implements ObjectStore {
  readonly name: string;
  readonly room: Room;
  readonly #root: string;
  readonly #marker: string;
  /** The marker was seen once, so it must exist. */
  #marked: boolean;
  readonly #owner: Owner | undefined;
  readonly #folders: DurableFolders;
  readonly #syncs = new FolderSync();
  /** Only the owner of a file may use O_NOATIME. */
  #readFlags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOATIME;

  constructor(root: string, marker: string, marked: boolean, owner: Owner | undefined) {
    this.name = root;
    const within: WithinFolder = (folder, work) => this.#within(folder, work);
    const room = directoryRoom(within);
    this.room = {
      keep: (bytes) => this.#explained('reserving space', () => room.keep(bytes)),
      release: () => this.#explained('freeing reserved space', () => room.release()),
    };
    this.#root = root;
    this.#marker = marker;
    this.#marked = marked;
    this.#owner = owner;
    this.#folders = new DurableFolders(within, FOLDER_MODE, async (path) => {
      if (owner !== undefined) await giveFolder(path, owner);
    });
  }

  async put(key: string, data: ObjectData, { signal, isNew = false }: PutOptions = {}): Promise<void> {
    checkKey(key);
    await this.#explained(`writing ${key}`, async () => {
      signal?.throwIfAborted();
      const temporary = temporaryName();
      try {
        await this.#write(temporary, dataParts(data), signal);
        if (await this.#place(temporary, key, isNew)) return;
        await expectSame(this, key, data, { signal });
        await this.#unlink(`tmp/${temporary}`);
      } catch (thrown) {
        await this.#unlink(`tmp/${temporary}`).catch(() => undefined);
        throw thrown;
      }
    });
    if (key === this.#marker) this.#marked = true;
  }

  async get(key: string, options: GetOptions = {}): Promise<Buffer> {
    checkKey(key);
    checkRange(options);
    return this.#explained(`reading ${key}`, async () => {
      for (let opens = 1; ; opens++) {
        options.signal?.throwIfAborted();
        try {
          return await this.#read(key, options);
        } catch (thrown) {
          // Replaced on the server by another machine.
          if (errnoCode(thrown) !== 'ESTALE' || opens === OPENS) throw thrown;
        }
      }
    });
  }

  async head(key: string, { signal }: StoreOptions = {}): Promise<StoredObject | undefined> {
    checkKey(key);
    signal?.throwIfAborted();
    return this.#explained(`checking ${key}`, async () => {
      const found = await stat(join(this.#root, key)).catch(absentAsUndefined);
      if (found?.isFile() === true) return { key, size: found.size, modified: found.mtimeMs };
      await this.#ensureThere();
      return undefined;
    });
  }

  async *list(prefix: string, { after = '', signal }: ListOptions = {}): AsyncGenerator<StoredObject> {
    checkPrefix(prefix);
    yield* this.#wholeWalk(() => listObjects(this.#root, { prefix, after, signal }));
  }

  async *foreign({ signal }: StoreOptions = {}): AsyncGenerator<string> {
    yield* this.#wholeWalk(() => foreignNames(this.#root, signal));
  }

  async delete(key: string, { signal }: StoreOptions = {}): Promise<void> {
    checkKey(key);
    signal?.throwIfAborted();
    await this.#explained(`deleting ${key}`, async () => {
      try {
        await this.#unlink(key);
        await this.#syncs.sync(dirname(join(this.#root, key)));
      } catch (thrown) {
        if (!isAbsent(thrown)) throw thrown;
        await this.#ensureThere();
      }
    });
    if (key === this.#marker) this.#marked = false;
  }

  async cleanTemporary({ olderThanMs = DAY_MS, signal }: CleanOptions = {}): Promise<Cleaned> {
    return this.#explained('removing temporary files', async () => {
      await this.#ensureThere();
      // The clock of the filesystem, which on NFS is the server's.
      const clock = temporaryName();
      const handle = await this.#create(clock);
      const { mtimeMs: now } = await handle.stat().finally(() => handle.close());
      await this.#unlink(`tmp/${clock}`);
      let count = 0;
      let bytes = 0;
      await this.#within('tmp', async (folder) => {
        for await (const { name, size, modified } of listTemporary(folder, signal)) {
          if (name === reserveName) continue;
          // A file from the future was written when a clock was wrong, and would otherwise stay until then.
          if (modified >= now - olderThanMs && modified <= now + DAY_MS) continue;
          await unlink(join(folder, name)).catch(absentAsUndefined);
          count++;
          bytes += size;
        }
      });
      return { count, bytes };
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  /**
   * Runs `work` with a path of the folder, valid until `work` settles. If root writes for another user, that user
   * cannot redirect the path.
   */
  async #within<T>(folder: string, work: (path: string) => Promise<T>): Promise<T> {
    if (this.#owner === undefined) return work(join(this.#root, folder));
    try {
      return await withHeldFolder(this.#root, folder, this.#owner, work);
    } catch (thrown) {
      // An unmounted filesystem leaves a directory of another owner.
      if (thrown instanceof AgentError && thrown.code === 'VAULT_DENIED') await this.#ensureThere();
      throw thrown;
    }
  }

  /** `name` is relative to the root. */
  #unlink(name: string): Promise<void> {
    return this.#within(folderOf(name), (folder) => unlink(join(folder, basename(name))));
  }

  async #write(name: string, parts: readonly Uint8Array[], signal: AbortSignal | undefined): Promise<void> {
    const handle = await this.#create(name);
    try {
      if (this.#owner !== undefined) await give(handle, this.#owner);
      await writeParts(handle, parts, signal);
      signal?.throwIfAborted();
      await handle.sync();
    } catch (thrown) {
      await handle.close().catch(() => undefined);
      throw thrown;
    }
    // On NFS, a full disk may be reported only here.
    await handle.close();
    signal?.throwIfAborted();
  }

  /** Creates a file in `tmp/`, which is created if it is missing (a copy of a vault may lack it). */
  async #create(name: string): Promise<FileHandle> {
    const create = (): Promise<FileHandle> =>
      this.#within('tmp', (folder) => open(join(folder, name), 'wx', FILE_MODE));
    try {
      return await create();
    } catch (thrown) {
      if (errnoCode(thrown) !== 'ENOENT') throw thrown;
      await this.#ensureThere();
      this.#folders.forget();
      await this.#folders.make('tmp');
      return create();
    }
  }

  /** Returns false if the object exists and must be new. */
  async #place(temporary: string, key: string, isNew: boolean): Promise<boolean> {
    const path = join(this.#root, key);
    const folder = folderOf(key);
    const place = (from: string, to: string): Promise<boolean> =>
      isNew ? renameToNew(from, to) : rename(from, to).then(() => true);
    for (let attempt = 0; ; attempt++)
      try {
        await this.#folders.make(folder);
        const isPlaced = await this.#within('tmp', (from) =>
          this.#within(folder, (to) => place(join(from, temporary), join(to, basename(key)))),
        );
        if (!isPlaced) return false;
        break;
      } catch (thrown) {
        if (errnoCode(thrown) !== 'ENOENT') throw thrown;
        await this.#ensureThere();
        this.#folders.forget();
        // The file in tmp/ is gone: removed by a process whose clock jumped, or NFS answered a repeated request.
        if (attempt === 1)
          throw new AgentError('VAULT_UNREACHABLE', `${path}: its temporary file vanished`, {
            cause: thrown,
          });
      }
    await this.#syncs.sync(dirname(path));
    return true;
  }

  async #read(key: string, options: GetOptions): Promise<Buffer> {
    const handle = await this.#openForReading(join(this.#root, key)).catch(absentAsUndefined);
    try {
      const found = await handle?.stat();
      if (handle === undefined || found?.isFile() !== true) {
        await this.#ensureThere();
        throw objectMissing(this.name, key);
      }
      const { start, end } = rangeWithin(found.size, options);
      return await readRange(handle, start, end - start);
    } finally {
      await handle?.close();
    }
  }

  async #openForReading(path: string): Promise<FileHandle> {
    try {
      return await open(path, this.#readFlags);
    } catch (thrown) {
      if (errnoCode(thrown) !== 'EPERM' || (this.#readFlags & constants.O_NOATIME) === 0) throw thrown;
      this.#readFlags &= ~constants.O_NOATIME;
      return open(path, this.#readFlags);
    }
  }

  /** Runs a walk that must miss nothing: at its end the vault must exist in the same directory as at its beginning. */
  async *#wholeWalk<T>(walk: () => AsyncIterable<T>): AsyncGenerator<T> {
    try {
      const before = await this.#ensureThere();
      yield* walk();
      const after = await this.#ensureThere();
      if (before.dev !== after.dev || before.ino !== after.ino)
        throw new AgentError(
          'VAULT_UNREACHABLE',
          `${this.#root} became another directory while it was listed`,
          {
            hint: 'something was mounted or unmounted there; run the command again',
          },
        );
    } catch (thrown) {
      throw directoryFailure(this.#root, 'listing it', thrown);
    }
  }

  /** Throws VAULT_NOT_FOUND if the directory or the marker is gone. */
  async #ensureThere(): Promise<Stats> {
    const root = await stat(this.#root).catch(absentAsUndefined);
    if (root?.isDirectory() !== true) throw unmarked(this.#root, this.#marker);
    if (this.#marked && (await stat(join(this.#root, this.#marker)).catch(absentAsUndefined)) === undefined)
      throw unmarked(this.#root, this.#marker);
    return root;
  }

  async #explained<T>(what: string, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (thrown) {
      throw directoryFailure(this.#root, what, thrown);
    }
  }
}

function unmarked(root: string, marker: string): AgentError {
  return new AgentError('VAULT_NOT_FOUND', `${root} has no vault: ${marker} is missing`, {
    hint: 'check that its filesystem is mounted, or run dattocli vault init to create a new vault',
  });
}

/** Returns the folder of a name relative to the root; '' for the root itself. */
function folderOf(name: string): string {
  return name.slice(0, Math.max(0, name.lastIndexOf('/')));
}

function temporaryName(): string {
  return `${process.pid}-${freshBytes(12).toString('hex')}`;
}

function isAbsent(thrown: unknown): boolean {
  const code = errnoCode(thrown);
  return code === 'ENOENT' || code === 'ENOTDIR';
}

function absentAsUndefined(thrown: unknown): undefined {
  if (!isAbsent(thrown)) throw thrown;
  return undefined;
}
