/**
 * An image as an NBD export: read-only, or writable with an overlay that is discarded at the end (overlay.ts). All
 * connections share the image and its cache.
 */
import { AgentError } from '../../base/errors.ts';
import {
  BackendError,
  type ExportBackend,
  type ExportDescription,
  ExportError,
  type ExportProvider,
  type StatusExtent,
  type ZeroOptions,
} from '../../nbd/server/backend.ts';
import type { ImageReader } from '../image/image-reader.ts';
import type { Overlay } from './overlay.ts';

export interface ImageExport {
  /** The name that clients ask for. The empty name means the first export. */
  readonly name: string;
  readonly description: string;
  readonly image: ImageReader;
  /** Makes the export writable. */
  readonly overlay?: Overlay | undefined;
}

/** The exports of one server. The caller closes images and overlays. */
export class ImageExports implements ExportProvider {
  readonly #exports: readonly ImageExport[];

  constructor(exports: readonly ImageExport[]) {
    this.#exports = exports;
  }

  list(): { name: string; description: string }[] {
    return this.#exports.map(({ name, description }) => ({ name, description }));
  }

  describe(name: string): ExportDescription {
    const { image, overlay, ...found } = this.#find(name);
    return {
      name: found.name,
      description: found.description,
      size: image.size,
      readOnly: overlay === undefined,
      multiConnection: true,
      fastZero: overlay !== undefined,
    };
  }

  open(name: string): ExportBackend {
    const { image, overlay } = this.#find(name);
    return new ImageBackend(image, overlay);
  }

  #find(name: string): ImageExport {
    const found = name === '' ? this.#exports[0] : this.#exports.find((each) => each.name === name);
    if (found === undefined) throw new ExportError('unknown', `there is no export "${name}" here`);
    return found;
  }
}

class ImageBackend implements ExportBackend {
  readonly size: number;
  readonly readOnly: boolean;
  readonly multiConnection = true;
  readonly fastZero: boolean;
  readonly #image: ImageReader;
  readonly #overlay: Overlay | undefined;

  constructor(image: ImageReader, overlay: Overlay | undefined) {
    this.#image = image;
    this.#overlay = overlay;
    this.size = image.size;
    this.readOnly = overlay === undefined;
    this.fastZero = overlay !== undefined;
  }

  async read(target: Uint8Array, offset: number): Promise<void> {
    const into = Buffer.from(target.buffer, target.byteOffset, target.length);
    try {
      if (this.#overlay !== undefined) {
        await this.#overlay.read(into, offset);
        return;
      }
      into.fill(0);
      await this.#image.readInto(into, offset);
    } catch (error) {
      throw ioError(error);
    }
  }

  async write(data: Uint8Array, offset: number): Promise<void> {
    await this.#change((overlay) => overlay.write(data, offset));
  }

  async zero(offset: number, length: number, options: ZeroOptions): Promise<void> {
    await this.#change((overlay) => overlay.zero(offset, length, options.hole));
  }

  trim(): void {
    // The overlay is discarded at the end, so trimming saves nothing.
  }

  flush(): void {
    // The overlay does not outlive this process, so it need not be durable.
  }

  async status(offset: number, length: number, limit: number): Promise<StatusExtent[]> {
    try {
      if (this.#overlay !== undefined) return await this.#overlay.status(offset, length, limit);
      return await statusOf(this.#image, offset, length, limit);
    } catch (error) {
      throw ioError(error);
    }
  }

  close(): void {
    // All connections share image and overlay; the caller closes them.
  }

  async #change(work: (overlay: Overlay) => Promise<void>): Promise<void> {
    if (this.#overlay === undefined) throw new BackendError('EPERM', 'the export is read-only');
    try {
      await work(this.#overlay);
    } catch (error) {
      throw ioError(error);
    }
  }
}

/** Returns at most `limit` runs of an image from `offset` on. Ranges that the image does not hold read as zeros. */
async function statusOf(
  image: ImageReader,
  offset: number,
  length: number,
  limit: number,
): Promise<StatusExtent[]> {
  const runs: StatusExtent[] = [];
  const end = offset + length;
  let at = offset;
  for await (const extent of image.extents(offset, end)) {
    if (extent.offset > at) runs.push({ length: extent.offset - at, hole: true, zero: true });
    if (runs.length >= limit) return runs;
    runs.push({ length: extent.length, hole: false, zero: false });
    at = extent.offset + extent.length;
    if (runs.length >= limit) return runs;
  }
  if (at < end) runs.push({ length: end - at, hole: true, zero: true });
  return runs;
}

/** Turns an error of the vault into a read error (EIO) for the client. The message goes to the log. */
function ioError(error: unknown): unknown {
  return error instanceof AgentError ? new BackendError('EIO', error.message, { cause: error }) : error;
}
