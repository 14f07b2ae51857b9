/** What an image is opened from: plain data that threads and child processes can be handed. */
import { openFileImage } from './file-image.ts';
import type { ImageReader } from './image-reader.ts';
import { type PointImageOptions, type PointImageSpec, openPointImage } from './point-image.ts';

export interface FileImageSpec {
  readonly kind: 'file';
  /** Absolute. */
  readonly path: string;
}

export type ImageSpec = FileImageSpec | PointImageSpec;

/** Throws FILE_ERROR, and for a recovery point what its vault throws. */
export function openImage(spec: ImageSpec, options: PointImageOptions = {}): Promise<ImageReader> {
  return spec.kind === 'file' ? openFileImage(spec.path) : openPointImage(spec, options);
}

/** Of the local directory that the image is read from, or its file; undefined where it comes over a network. */
export function placeOfImage(spec: ImageSpec): string | undefined {
  if (spec.kind === 'file') return spec.path;
  return spec.location.kind === 'directory' ? spec.location.path : undefined;
}
