/**
 * The exports of dattosrv: the regular files of one directory. What may be opened is decided here: names are
 * names of files (export-name.ts), links are not followed, devices and pipes are not images. An image that is
 * made on demand appears under its name only when it is whole and durable, so that neither a cut nor a second
 * client ever meets half of one.
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
  /** Nothing is written or made. */
  readonly readOnly: boolean;
  /** `NAME@SIZE` makes an image that is not there. */
  readonly create: boolean;
  /** What the empty name stands for, `NAME` or `NAME@SIZE`. */
  readonly defaultExport: string | undefined;
}

/** Temporary names begin like this: with a dot, so that no export name reaches them. */
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
      throw new ExportError('unknown', `image "${wanted.name}" vanished as soon as it was made`);
    return new FileBackend(image.fd, image.size, image.readOnly);
  }

  #parse(text: string): ExportName {
    if (text !== '') return parseExportName(text);
    if (this.#options.defaultExport === undefined)
      throw new ExportError('unknown', 'this server has no default export: name an image of its directory');
    return parseExportName(this.#options.defaultExport);
  }

  /** Undefined where there is no such file. */
  #openExisting({ name, size }: ExportName): OpenImage | undefined {
    const path = join(this.#options.directory, name);
    let image: OpenImage | undefined;
    try {
      // Opening alone does things to some devices. What takes the file's place after this is found out below.
      const status = lstatSync(path);
      if (!status.isFile() && !status.isSymbolicLink())
        throw new ExportError('policy', `"${name}" is not a regular file`);
      image = this.#options.readOnly ? openImage(path, true) : openBestImage(path);
    } catch (error) {
      if (error instanceof ExportError) throw error;
      if (errnoCode(error) === 'ENOENT') return undefined;
      if (errnoCode(error) === 'ELOOP')
        throw new ExportError('policy', `"${name}" is a symbolic link, which is not followed`);
      throw new ExportError('policy', `"${name}" cannot be opened: ${errnoCode(error) ?? String(error)}`, {
        cause: error,
      });
    }
    if (image === undefined) throw new ExportError('policy', `"${name}" is not a regular file`);
    if (size === undefined || size === image.size) return image;
    closeSync(image.fd);
    throw new ExportError('invalid', `image "${name}" has ${image.size} bytes, but ${size} were asked for`);
  }

  /** The size to make the image with. */
  #checkMayCreate({ name, size }: ExportName): number {
    const { create, readOnly } = this.#options;
    if (size !== undefined && create && !readOnly) return size;
    const why =
      readOnly || !create
        ? 'this server makes none (dattosrv --create would)'
        : `"${name}@SIZE" would make one of SIZE bytes`;
    throw new ExportError('unknown', `there is no image "${name}", and ${why}`);
  }

  async #create(name: string, size: number): Promise<void> {
    const { directory } = this.#options;
    const path = join(directory, name);
    const temporary = join(directory, `${unfinishedPrefix}${freshUuid()}`);
    try {
      await makeImage(temporary, size);
      // A hard link, unlike a rename, never replaces: where two clients make the same image, one wins.
      await link(temporary, path).catch(async (error: unknown) => {
        if (errnoCode(error) === 'EEXIST') return;
        if (!noLinks.has(errnoCode(error) ?? '')) throw error;
        // A filesystem without hard links: for a moment another client can meet an image of no size.
        await makeImage(path, size);
      });
      await syncDirectory(directory);
    } catch (error) {
      const code = errnoCode(error);
      const reason = code === 'EFBIG' ? 'no file here can be that large' : (code ?? String(error));
      throw new ExportError('policy', `image "${name}" of ${formatBytes(size)} cannot be made: ${reason}`, {
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
 * Opens for writing, or for reading where the file may not be written: no permission, a read-only filesystem,
 * or no write bit at all (which root could override, but it is how a finished image is protected).
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

/** Undefined for what is no regular file. NONBLOCK: opening a pipe must not wait for its other end. */
function openImage(path: string, readOnly: boolean): OpenImage | undefined {
  const access = readOnly ? constants.O_RDONLY : constants.O_RDWR;
  const fd = openSync(path, access | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const status = fstatSync(fd);
  if (status.isFile()) return { fd, size: status.size, readOnly };
  closeSync(fd);
  return undefined;
}

/** What `link` fails with on vfat, exfat and some network filesystems. */
const noLinks: ReadonlySet<string> = new Set(['EPERM', 'EOPNOTSUPP', 'ENOTSUP', 'ENOSYS', 'EMLINK']);

/** A new file of `size` bytes, durable; nothing where that fails. */
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
