/** Condemned lists: `condemned/LIST` and `condemned/LIST.waits` (docs/formats/vault.md, "Pruning"). */
import * as Type from 'typebox';
import { choice } from '../schema.ts';
import { id, type Stored } from './stored.ts';

export const condemned = Type.Object({
  reason: choice(['prune', 'repair'], '`repair`: the packs are damaged, and their readable data was copied'),
  packs: Type.Array(id('ID of a pack')),
});
export type Condemned = Stored<typeof condemned>;

export const condemnedWaits = Type.Object({ writers: Type.Array(id('ID of a writer')) });
