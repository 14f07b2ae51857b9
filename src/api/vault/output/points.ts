/** The `--json` documents of `points` and `forget` (docs/vault.md, "For scripts"). */
import * as Type from 'typebox';
import { count, flag, mapOf, nullable, text, time } from '../../schema.ts';
import { point } from '../point.ts';
import type { Stored } from '../stored.ts';

const check = Type.Object({
  level: text('`reachable`, `read` or `filesystem`'),
  at: time('when it ended'),
  coverage: Type.Number({ minimum: 0, maximum: 1, description: 'share of the chunks that were checked' }),
  outcome: text('`whole`, `damaged` or `unfinished`'),
  problems: Type.Array(Type.String()),
});

const device = point.properties.devices.items.properties;
const { path, size, sector_size, filesystem, partition, used_bytes, stored_bytes } = device;
const { freeze_ms, consistency, tracker, kind: deviceKind, read_errors, read_only } = device;

const pointDevice = Type.Object({
  ...{ path, size, sector_size, filesystem, partition, used_bytes, stored_bytes },
  identity: nullable(text('distinguishes the device from its clones')),
  ...{ freeze_ms, consistency, tracker, kind: deviceKind, read_errors, read_only },
});

const { id, finished, started, job, kind, agent, warnings } = point.properties;
const { id: machineId, name, boot } = point.properties.machine.properties;

const pointFields = {
  ...{ id, finished, started, job, kind, agent },
  machine: Type.Object({ id: machineId, name, boot }),
  protected: flag('rules do not forget the point'),
  stored: nullable(time("when the point arrived, by the store's clock")),
  time_doubt: nullable(text('why `finished` is not trusted')),
  checks: Type.Array(check, { description: 'the last check of each level, latest first' }),
  damage: nullable(check, {
    description: 'the last check that found damage, if no later check has cleared it',
  }),
  warnings,
  devices: Type.Array(pointDevice),
};

const pointDocument = Type.Object(pointFields);

export const pointsDocument = Type.Object({
  vault: Type.Object({ id: text('ID of the vault'), name: text('its location') }),
  points: Type.Array(pointDocument, { description: 'earliest first' }),
  damaged: Type.Array(
    Type.Object({
      key: text('name of the object'),
      code: text('see errors.md'),
      message: text('the damage'),
    }),
    { description: 'objects under `points/` that cannot be read' },
  ),
});

export const onePointDocument = Type.Object({
  ...pointFields,
  layout: mapOf(Type.Unknown(), { description: 'the disk layout of its machine' }),
});

export const forgetDocument = Type.Object({
  dry_run: flag('nothing was changed'),
  forgotten: Type.Array(Type.String(), {
    description: 'IDs; with --dry-run, the points that would be forgotten',
  }),
  protected: Type.Array(Type.String()),
  unprotected: Type.Array(Type.String()),
  groups: Type.Array(
    Type.Object({
      machine: text('name of the machine'),
      devices: Type.Array(Type.String()),
      keep: Type.Array(
        Type.Object({ point: text('ID'), finished: time('its time'), reasons: Type.Array(Type.String()) }),
      ),
      forget: Type.Array(Type.Object({ point: text('ID'), finished: time('its time') })),
    }),
    { description: 'the result of the rules, by machine and set of devices; empty if points were given' },
  ),
  damaged: Type.Array(Type.Object({ key: text('name of the object'), message: text('the damage') }), {
    description: 'points that cannot be read; rules do not touch them',
  }),
});

export const diffDocument = Type.Object({
  from: text('ID of the first point'),
  to: text('ID of the second point'),
  devices: Type.Tuple([Type.String(), Type.String()], {
    description: 'path in the first point and in the second point',
  }),
  sizes: Type.Tuple([Type.Integer(), Type.Integer()], { description: 'bytes' }),
  chunk_size: count('bytes; ranges are multiples of this size'),
  changed_bytes: count('bytes of the ranges'),
  changed_ranges: count('number of ranges'),
  ranges: nullable(Type.Array(Type.Object({ offset: count('bytes'), length: count('bytes') })), {
    description: 'with --ranges',
  }),
});

export type CheckDocument = Stored<typeof check>;
export type PointDeviceDocument = Stored<typeof pointDevice>;
export type PointDocument = Stored<typeof pointDocument>;
export type PointsDocument = Stored<typeof pointsDocument>;
export type OnePointDocument = Stored<typeof onePointDocument>;
export type ForgetDocument = Stored<typeof forgetDocument>;
export type DiffDocument = Stored<typeof diffDocument>;
