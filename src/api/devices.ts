/** The block devices of `GET /v1/devices`. */
import * as Type from 'typebox';
import { count, flag, named, nullable, text } from './schema.ts';

/** Null: there is no such value, or it is not known. */
export const deviceDocument = named('Device', {
  path: text('path under `/dev`'),
  kernel_name: text("the kernel's name"),
  kind: text('disk, partition, LVM volume, …'),
  size: count('bytes'),
  used: nullable(count('bytes of used blocks')),
  sector_size: count('bytes'),
  read_only: flag('the device cannot be written'),
  file_system: nullable(text('type of the filesystem')),
  uuid: nullable(text('UUID of the filesystem')),
  label: nullable(text('label of the filesystem')),
  partition_uuid: nullable(text('UUID of the partition')),
  partition_label: nullable(text('label of the partition')),
  disk: nullable(text('path of the whole disk, for a partition')),
  backing_file: nullable(text('the file of a loop device')),
  holders: Type.Array(Type.String(), { description: 'devices that lie on it' }),
  mounts: Type.Array(
    Type.Object({
      path: text('mount point'),
      read_only: flag('mounted read-only'),
      root: text('the folder of the filesystem that is mounted there'),
    }),
    { description: 'the mounts of its filesystem' },
  ),
  backup: Type.Object(
    { possible: flag('it can be backed up'), how: text('how, or why not') },
    { description: 'how it would be backed up' },
  ),
});
export type DeviceDocument = Type.Static<typeof deviceDocument>;
