/** The description of an image to open, as plain data for threads and child processes. */
import { openFileImage } from './file-image.ts';
import type { ImageReader } from './image-reader.ts';
import { type PointImageOptions, type PointImageSpec, openPointImage } from './point-image.ts';

export interface FileImageSpec {
  readonly kind: 'file';
  /** Absolute path. */
  readonly path: string;
}

export type ImageSpec = FileImageSpec | PointImageSpec;

/** Throws FILE_ERROR, and for a recovery point the errors of its vault. */
export function openImage(spec: ImageSpec, options: PointImageOptions = {}): Promise<ImageReader> {
  return spec.kind === 'file' ? openFileImage(spec.path) : openPointImage(spec, options);
}

/** Returns the path of the local vault directory or image file; undefined if the image comes over a network. */
export function placeOfImage(spec: ImageSpec): string | undefined {
  if (spec.kind === 'file') return spec.path;
  return spec.location.kind === 'directory' ? spec.location.path : undefined;
}
