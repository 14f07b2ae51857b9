/** `export POINT`: serves an image over NBD from this process until the caller stops it. */
import type { Log } from '../../base/log.ts';
import { type ImageSpec, openImage } from '../image/open-image.ts';
import { ImageExports } from './image-backend.ts';
import { Overlay } from './overlay.ts';
import { type ExportAddress, type ExportServer, startExportServer } from './server.ts';

export interface ExportOptions {
  readonly image: ImageSpec;
  /** Name of the export. Clients may also ask for the default export. */
  readonly name: string;
  readonly description?: string;
  readonly listen: ExportAddress;
  /** Makes the export writable: data that clients write goes to a file in this directory, and is lost at the end. */
  readonly overlay?: { readonly directory?: string | undefined } | undefined;
  /** Size of the image cache in memory, bytes. Default 48 MiB. */
  readonly cacheBytes?: number;
  readonly log: Log;
}

/** Throws FILE_ERROR, BAD_USAGE, and the errors of opening the image. */
export async function exportImage(options: ExportOptions): Promise<ExportServer> {
  const { name, listen, log, description = '' } = options;
  await using steps = new AsyncDisposableStack();
  const image = await openImage(options.image, { cacheBytes: options.cacheBytes ?? 48 * 1024 * 1024 });
  steps.defer(() => image.close());
  let overlay: Overlay | undefined;
  if (options.overlay !== undefined) {
    overlay = await Overlay.create(image, options.overlay.directory);
    steps.adopt(overlay, (each) => each.close());
  }
  const exports = new ImageExports([{ name, description, image, overlay }]);
  const server = await startExportServer({ exports, listen, log });
  steps.defer(() => server.stop());
  const opened = steps.move();
  return {
    uri: server.uri,
    get connections() {
      return server.connections;
    },
    stop: () => opened.disposeAsync(),
  };
}
