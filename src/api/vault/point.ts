/** A recovery point as a vault stores it (docs/formats/vault.md, "Points"). */
import * as Type from 'typebox';
import { choice, count, flag, mapOf, nullable, text, wholeNumber } from '../schema.ts';
import { digits, id, type Stored, timestamp } from './stored.ts';

const filesystem = Type.Object({
  type: text('empty if unknown'),
  uuid: text('empty if there is none'),
  label: text('empty if there is none'),
});

const partition = Type.Object({
  disk: text('path of the disk'),
  number: count('number of the partition'),
  start: count('bytes from the start of the disk'),
  uuid: text('empty if there is none'),
});

/** 1024^6 chunks have more bytes than a safe integer can hold. */
const mostLevels = 6;

const pointDevice = Type.Object({
  path: text('path of the device'),
  size: count('bytes'),
  sector_size: wholeNumber(1, Number.MAX_SAFE_INTEGER, 'bytes'),
  filesystem: nullable(filesystem),
  partition: nullable(partition),
  identity: Type.Optional(
    text(
      'distinguishes the device from its clones; absent in points of the first versions, and if nothing distinguishes it',
    ),
  ),
  root: digits(64, 'name of the root page'),
  levels: wholeNumber(0, mostLevels, 'level of the root page'),
  used_bytes: count('bytes of used blocks'),
  stored_bytes: count('bytes that it added to the vault'),
  freeze_ms: Type.Number({
    minimum: 0,
    maximum: Number.MAX_SAFE_INTEGER,
    description: 'length of the freeze',
  }),
  consistency: choice(['idle', 'frozen', 'snapshot', 'torn'], 'how the image came to be of one instant'),
  tracker: text('the tracker of writes'),
  kind: text('`full`, `incremental`, …'),
  read_errors: Type.Array(Type.Object({ offset: count('bytes'), length: count('bytes') })),
  read_only: flag('the device could not be written'),
});

const machine = Type.Object({
  id: text('from /etc/machine-id; empty if there is none'),
  name: text('host name'),
  boot: choice(['uefi', 'bios'], 'how the machine boots'),
  layout: mapOf(Type.Unknown(), {
    description: 'data to rebuild the machine (src/devices/machine-layout.ts), and data of older versions',
  }),
});

export const point = Type.Object({
  format: Type.Literal(1),
  id: id('ID of the point'),
  finished: timestamp("the time of the image by the writer's clock"),
  started: timestamp('when the job began'),
  job: text('UUID of the job'),
  kind: text('`full`, `incremental`, …'),
  agent: text('version of the program that wrote it'),
  machine,
  warnings: Type.Array(
    Type.Object({
      code: text('see errors.md'),
      message: text('the warning'),
      device: Type.Optional(text('path')),
    }),
  ),
  devices: Type.Array(pointDevice),
});

export type Point = Stored<typeof point>;
export type PointMachine = Point['machine'];
export type PointDevice = Point['devices'][number];
