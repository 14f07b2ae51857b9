/** The destination of a restore, as the command line names it. */
import type { NbdAddress } from '../../nbd/client/uri.ts';

/** `given`: as a person wrote it, and is to write it once more to overwrite what is there. */
export type DestinationName =
  | { readonly kind: 'nbd'; readonly address: NbdAddress; readonly given: string }
  | { readonly kind: 'local'; readonly path: string; readonly given: string };
