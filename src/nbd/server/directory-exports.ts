/**
 * The exports of dattosrv: the regular files of one directory. Export names are file names (export-name.ts), links are not
 * followed, and devices and pipes are refused. An image that is created on demand appears under its name only when it is
 * complete and durable. So no client ever sees an incomplete image, also after a crash.
 */
import { closeSync, constants, type Dirent, fstatSync, lstatSync, openSync } from 'node:fs';
import { link, open, readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { formatBytes } from '../../base/bytes.ts';
import { syncDirectory } from '../../base/durable.ts';
import { errnoCode } from '../../base/errors.ts';
import { freshUuid } from '../../base/random.ts';
import { type ExportDescription, ExportError, type ExportProvider } from './backend.ts';
import { type ExportName, isImageName, parseExportName } from './export-name.ts';
import { FileBackend } from './file-backend.ts';

export interface DirectoryExportsOptions {
  readonly directory: string;
  /** Clients cannot write, and no image is created. */
  readonly readOnly: boolean;
  /** `NAME@SIZE` creates a missing image. */
  readonly create: boolean;
  /** The export for the empty name, as `NAME` or `NAME@SIZE`. */
  readonly defaultExport: string | undefined;
}

/** The start of temporary names. No export name can begin with a dot. */
const unfinishedPrefix = '.unfinished-';

interface OpenImage {
  readonly fd: number;
  readonly size: number;
  readonly readOnly: boolean;
}

export class DirectoryExports implements ExportProvider {
  readonly #options: DirectoryExportsOptions;

  constructor(options: DirectoryExportsOptions) {
    this.#options = options;
  }

  async list(): Promise<{ name: string; description: string }[]> {
    const entries = await readdir(this.#options.directory, { withFileTypes: true });
    const names = entries.filter(isImageEntry).map((entry) => entry.name);
    return names.sort().map((name) => ({ name, description: '' }));
  }

  describe(text: string): ExportDescription {
    const wanted = this.#parse(text);
    const image = this.#openExisting(wanted);
    if (image === undefined) {
      this.#checkMayCreate(wanted);
      return this.#description(wanted.name, wanted.size ?? 0, false);
    }
    closeSync(image.fd);
    return this.#description(wanted.name, image.size, image.readOnly);
  }

  async open(text: string): Promise<FileBackend> {
    const wanted = this.#parse(text);
    let image = this.#openExisting(wanted);
    if (image === undefined) {
      await this.#create(wanted.name, this.#checkMayCreate(wanted));
      image = this.#openExisting(wanted);
    }
    if (image === undefined)
      throw new ExportError('unknown', `image "${wanted.name}" was removed right after it was created`);
    return new FileBackend(image.fd, image.size, image.readOnly);
  }

  #parse(text: string): ExportName {
    if (text !== '') return parseExportName(text);
    if (this.#options.defaultExport === undefined)
      throw new ExportError('unknown', 'this server has no default export: name an image of its directory');
    return parseExportName(this.#options.defaultExport);
  }

  /** Opens an existing image. Returns undefined if the file does not exist. */
  #openExisting({ name, size }: ExportName): OpenImage | undefined {
    const path = join(this.#options.directory, name);
    let image: OpenImage | undefined;
    try {
      // Opening some devices has side effects, so check the type first. A file that is replaced after that is detected below.
      const status = lstatSync(path);
      if (!status.isFile() && !status.isSymbolicLink())
        throw new ExportError('policy', `"${name}" is not a regular file`);
      image = this.#options.readOnly ? openImage(path, true) : openBestImage(path);
    } catch (error) {
      if (error instanceof ExportError) throw error;
      if (errnoCode(error) === 'ENOENT') return undefined;
      if (errnoCode(error) === 'ELOOP')
        throw new ExportError('policy', `"${name}" is a symbolic link, and links are not followed`);
      throw new ExportError('policy', `Cannot open "${name}": ${errnoCode(error) ?? String(error)}`, {
        cause: error,
      });
    }
    if (image === undefined) throw new ExportError('policy', `"${name}" is not a regular file`);
    if (size === undefined || size === image.size) return image;
    closeSync(image.fd);
    throw new ExportError('invalid', `image "${name}" has ${image.size} bytes, but ${size} were requested`);
  }

  /** Returns the size for a new image. Throws ExportError if none may be created. */
  #checkMayCreate({ name, size }: ExportName): number {
    const { create, readOnly } = this.#options;
    if (size !== undefined && create && !readOnly) return size;
    const why =
      readOnly || !create
        ? 'start the server with --create to create missing images'
        : `open "${name}@SIZE" to create it with SIZE bytes`;
    throw new ExportError('unknown', `image "${name}" does not exist; ${why}`);
  }

  async #create(name: string, size: number): Promise<void> {
    const { directory } = this.#options;
    const path = join(directory, name);
    const temporary = join(directory, `${unfinishedPrefix}${freshUuid()}`);
    try {
      await makeImage(temporary, size);
      // Unlike a rename, a hard link never replaces a file. If two clients create the same image, one of them wins.
      await link(temporary, path).catch(async (error: unknown) => {
        if (errnoCode(error) === 'EEXIST') return;
        if (!noLinks.has(errnoCode(error) ?? '')) throw error;
        // The filesystem has no hard links. For a moment, another client can see an image of size 0.
        await makeImage(path, size);
      });
      await syncDirectory(directory);
    } catch (error) {
      const code = errnoCode(error);
      const reason = code === 'EFBIG' ? 'the filesystem has no files of this size' : (code ?? String(error));
      throw new ExportError('policy', `Cannot create image "${name}" of ${formatBytes(size)}: ${reason}`, {
        cause: error,
      });
    } finally {
      await unlink(temporary).catch(() => undefined);
    }
  }

  #description(name: string, size: number, readOnly: boolean): ExportDescription {
    return {
      name,
      size,
      readOnly: readOnly || this.#options.readOnly,
      multiConnection: true,
      fastZero: true,
      description: '',
    };
  }
}

function isImageEntry(entry: Dirent): boolean {
  return entry.isFile() && isImageName(entry.name);
}

/**
 * Opens an image for writing, or for reading only: without permission, on a read-only filesystem, or without any write bit.
 * root could ignore missing write bits, but operators protect finished images with them.
 */
function openBestImage(path: string): OpenImage | undefined {
  try {
    const image = openImage(path, false);
    if (image === undefined || (fstatSync(image.fd).mode & 0o222) !== 0) return image;
    closeSync(image.fd);
  } catch (error) {
    if (!['EACCES', 'EROFS', 'EPERM'].includes(errnoCode(error) ?? '')) throw error;
  }
  return openImage(path, true);
}

/** Returns undefined if the file is not a regular file. O_NONBLOCK, so that opening a pipe does not wait. */
function openImage(path: string, readOnly: boolean): OpenImage | undefined {
  const access = readOnly ? constants.O_RDONLY : constants.O_RDWR;
  const fd = openSync(path, access | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const status = fstatSync(fd);
  if (status.isFile()) return { fd, size: status.size, readOnly };
  closeSync(fd);
  return undefined;
}

/** The errors of `link` on vfat, exfat and some network filesystems. */
const noLinks: ReadonlySet<string> = new Set(['EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'EMLINK']);

/** Creates a durable file of `size` bytes, or leaves no file after an error. */
async function makeImage(path: string, size: number): Promise<void> {
  const file = await open(path, 'wx', 0o600);
  try {
    await file.truncate(size);
    await file.sync();
  } catch (error) {
    await unlink(path);
    throw error;
  } finally {
    await file.close();
  }
}
