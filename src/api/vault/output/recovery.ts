/** The `--json` documents of `restore`, `mount`, `export` and `verify POINT` (docs/vault.md, "For scripts"). */
import * as Type from 'typebox';
import { choice, count, flag, nullable, text, time } from '../../schema.ts';
import type { Stored } from '../stored.ts';

const lost = Type.Array(
  Type.Object({ offset: count('bytes'), length: count('bytes'), reason: text('the damage') }),
  { description: 'ranges that the vault has lost' },
);
const share = Type.Number({ minimum: 0, maximum: 1, description: 'share of the chunks that were checked' });
const outcome = choice(['whole', 'damaged', 'unfinished'], 'result');

export const restoreDocument = Type.Object({
  point: text('ID'),
  device: text('path of the device in the point'),
  to: text('path of the destination'),
  size: count('bytes of the device'),
  written: count('bytes that were written'),
  equal: count('bytes that were there already'),
  zeroed: count('bytes that were made zero'),
  left: count('bytes that were left as they were'),
  verified: count('bytes that were read back'),
  lost,
  warnings: Type.Array(Type.String()),
  table_moved: flag('the partition table was adapted to a larger disk'),
  partitions_reread: nullable(flag('the kernel has read the partition table again')),
  seconds: Type.Number({ description: 'how long it took' }),
});

export const restoreFilesDocument = Type.Object({
  point: text('ID'),
  device: text('path of the device in the point'),
  to: text('path of the destination'),
  paths: Type.Array(Type.String(), { description: 'relative to `to`' }),
  seconds: Type.Number({ description: 'how long it took' }),
});

export const mountDocument = Type.Object({
  id: text('ID of the mount'),
  directory: nullable(text('mount point')),
  point: text('ID'),
  device: text('path of the device in the point'),
  partition: nullable(count('number of the partition')),
  filesystem: nullable(text('type of the filesystem')),
  method: nullable(text('`nbd-client`, `nbdfuse` or `qemu-storage-daemon`')),
  created: time('when it was mounted'),
  state: choice(['mounting', 'mounted', 'unmounted', 'broken'], 'state of the mount'),
});

export const exportDocument = Type.Object({
  uri: text('URI of the NBD export'),
  point: text('ID'),
  device: text('path of the device in the point'),
  size: count('bytes'),
  writable: flag('writes are kept until the export ends'),
});

export const verifyDocument = Type.Object({
  point: text('ID'),
  level: choice(['reachable', 'read', 'filesystem'], 'depth of the check'),
  at: time('when it ended'),
  coverage: share,
  outcome,
  devices: Type.Array(
    Type.Object({
      device: text('path'),
      coverage: share,
      outcome,
      problems: Type.Array(Type.String()),
      notes: Type.Array(Type.String()),
      lost,
    }),
  ),
  kept: flag('the result is stored in the vault, and `points` shows it'),
  warnings: Type.Array(Type.String()),
});

export type RestoreDocument = Stored<typeof restoreDocument>;
export type RestoreFilesDocument = Stored<typeof restoreFilesDocument>;
export type MountDocument = Stored<typeof mountDocument>;
export type ExportDocument = Stored<typeof exportDocument>;
export type VerifyDocument = Stored<typeof verifyDocument>;
