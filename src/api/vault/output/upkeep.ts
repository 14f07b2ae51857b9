/** The `--json` documents of `vault stats`, `check`, `prune` and `unlock` (docs/vault.md, "For scripts"). */
import * as Type from 'typebox';
import { choice, count, flag, nullable, text, time } from '../../schema.ts';
import type { Stored } from '../stored.ts';

const participantFields = {
  id: text('ID of the writer or lock'),
  what: text('`backup`, `prune` or `repair`; empty if its document cannot be read'),
  host: nullable(text('name of its host')),
  pid: nullable(count('process ID')),
  started: text('by its own clock; empty if its document cannot be read'),
  last_sign: time("its last heartbeat, by the store's clock"),
};
const participantDocument = Type.Object(participantFields);

const parts = (description: string) =>
  Type.Object(
    {
      parts: count('number'),
      plain_bytes: count('bytes before compression'),
      stored_bytes: count('bytes as stored'),
    },
    { description },
  );

export const statsDocument = Type.Object({
  points: count('recovery points'),
  damaged_points: count('points that cannot be read'),
  machines: count('machines'),
  images: count('devices of all points'),
  used_bytes: count('bytes in use on all images: restoring every point would write this much'),
  packs: count('packs'),
  bytes: count('bytes of all packs'),
  chunks: parts('data of the images'),
  pages: parts('maps of the images'),
  condemned: Type.Object(
    { packs: count('packs'), bytes: count('bytes') },
    { description: 'packs that are marked for deletion' },
  ),
  deduplication: nullable(
    Type.Number({
      description: 'used bytes per byte of chunks before compression; null if there are no chunks',
    }),
  ),
  compression: nullable(
    Type.Number({
      description: 'bytes of chunks before compression per stored byte; null if there are no chunks',
    }),
  ),
});

const range = { offset: count('bytes'), length: count('bytes') };

export const checkDocument = Type.Object({
  ok: flag('no damage was found'),
  packs: count('packs'),
  bytes: count('bytes of all packs'),
  coverage: Type.Number({
    minimum: 0,
    maximum: 1,
    description: 'share of the bytes whose chunks were opened',
  }),
  damaged_packs: Type.Array(
    Type.Object({
      pack: text('ID of the pack'),
      reason: text('the damage'),
      parts: nullable(count('parts that are damaged')),
      condemned: flag('marked for deletion'),
    }),
  ),
  missing_packs: Type.Array(Type.String()),
  damaged_objects: Type.Array(Type.Object({ key: text('name of the object'), reason: text('the damage') })),
  foreign: Type.Array(Type.String(), { description: 'names of objects that the vault did not write' }),
  points: Type.Array(
    Type.Object({
      point: text('ID'),
      finished: time('its time'),
      machine: text('name of the machine'),
      whole: flag('nothing of it is lost'),
      devices: Type.Array(
        Type.Object({
          device: text('path'),
          size: count('bytes'),
          whole: flag('nothing of it is lost'),
          lost_bytes: count('bytes'),
          lost: Type.Array(Type.Object(range)),
          more_lost: flag('there are more ranges than listed'),
        }),
      ),
    }),
  ),
  repair: nullable(
    Type.Object({
      damaged_before: count('packs that were damaged before the repair'),
      condemned_packs: Type.Array(Type.String()),
      salvaged_parts: count('parts that were stored again'),
      salvaged_bytes: count('their bytes'),
    }),
    { description: 'with --repair; the fields above describe the vault after the repair' },
  ),
});

export const pruneDocument = Type.Object({
  dry_run: flag('nothing was changed'),
  points: count('recovery points'),
  deleted: Type.Object({ packs: count('packs'), bytes: count('bytes') }),
  copied: Type.Object({ parts: count('parts'), bytes: count('bytes') }),
  waiting: Type.Object(
    { packs: count('packs'), bytes: count('bytes'), writers: Type.Array(participantDocument) },
    { description: 'condemned packs, which a later prune deletes when these writers have ended' },
  ),
  kept: Type.Object({ packs: count('packs'), bytes: count('bytes'), waste: count('unused bytes') }),
  dead: Type.Array(participantDocument, { description: 'writers that were declared stale' }),
  withdrawn: Type.Array(Type.String(), {
    description: 'incomplete points that stale writers published late, and that were removed',
  }),
  no_room: count('packs that are kept because the store has no room for copies of their used data'),
  damaged: Type.Array(Type.Object({ pack: text('ID of the pack'), reason: text('the damage') })),
  leftovers: nullable(Type.Object({ count: count('number'), bytes: count('bytes') })),
});

export const atWorkDocument = Type.Object({
  writers: Type.Array(participantDocument),
  locks: Type.Array(participantDocument),
});

export const unlockedDocument = Type.Object({
  unlocked: Type.Object({ ...participantFields, role: choice(['writer', 'lock'], 'its part') }),
});

export type ParticipantDocument = Stored<typeof participantDocument>;
export type PartsDocument = Stored<typeof statsDocument>['chunks'];
export type StatsDocument = Stored<typeof statsDocument>;
export type CheckDocument = Stored<typeof checkDocument>;
export type PruneDocument = Stored<typeof pruneDocument>;
export type AtWorkDocument = Stored<typeof atWorkDocument>;
export type UnlockedDocument = Stored<typeof unlockedDocument>;
