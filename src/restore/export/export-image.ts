/** `export POINT`: an image served over NBD by this process until it is stopped. */
import type { Log } from '../../base/log.ts';
import { type ImageSpec, openImage } from '../image/open-image.ts';
import { ImageExports } from './image-backend.ts';
import { Overlay } from './overlay.ts';
import { type ExportAddress, type ExportServer, startExportServer } from './server.ts';

export interface ExportOptions {
  readonly image: ImageSpec;
  /** Of the export; clients may also ask for the default one. */
  readonly name: string;
  readonly description?: string;
  readonly listen: ExportAddress;
  /** What clients write is kept until the end, in a file in this directory, and then forgotten. */
  readonly overlay?: { readonly directory?: string | undefined } | undefined;
  /** Bytes of the image that are kept in memory. Default 48 MiB. */
  readonly cacheBytes?: number;
  readonly log: Log;
}

/** Throws what opening the image throws, FILE_ERROR, BAD_USAGE. */
export async function exportImage(options: ExportOptions): Promise<ExportServer> {
  const { name, listen, log, description = '' } = options;
  const image = await openImage(options.image, { cacheBytes: options.cacheBytes ?? 48 * 1024 * 1024 });
  let overlay: Overlay | undefined;
  try {
    if (options.overlay !== undefined) overlay = await Overlay.create(image, options.overlay.directory);
    const exports = new ImageExports([{ name, description, image, overlay }]);
    const server = await startExportServer({ exports, listen, log });
    return {
      uri: server.uri,
      get connections() {
        return server.connections;
      },
      stop: async () => {
        await server.stop();
        await overlay?.close();
        await image.close();
      },
    };
  } catch (error) {
    await overlay?.close();
    await image.close();
    throw error;
  }
}
