/** The destination of a restore, as the command line names it. */
import type { NbdAddress } from '../../nbd/client/uri.ts';

/** `given`: the name as the user wrote it, and must write it again to overwrite the contents. */
export type DestinationName =
  | { readonly kind: 'nbd'; readonly address: NbdAddress; readonly given: string }
  | { readonly kind: 'local'; readonly path: string; readonly given: string };
