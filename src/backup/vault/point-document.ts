/** The description of the machine and its devices in a recovery point (docs/formats/vault.md). */
import type { ImageRoot } from '../../block/target.ts';
import type { WarningCode } from '../../base/warning-codes.ts';
import type { Device } from '../../devices/device.ts';
import { deviceIdentity } from '../../devices/identity.ts';
import { machineLayout } from '../../devices/machine-layout.ts';
import type { PointDevice, PointMachine } from '../../vault/points/point.ts';
import { thisProcess } from '../../vault/writing/owner.ts';
import type { DeviceStatus, JobWarning } from '../../api/job-status.ts';

export async function describeMachine(): Promise<PointMachine> {
  const { machine: id, host } = await thisProcess();
  const { boot, ...layout } = await machineLayout();
  return { id, name: host, boot, layout: { ...layout } };
}

/** Warnings after which an image may be torn. */
const tearing: ReadonlySet<WarningCode> = new Set(['IN_USE', 'NOT_FROZEN', 'NOT_ONE_INSTANT']);

/** The facts about the image of a device that is complete in the vault. */
export interface FinishedImage {
  readonly map: ImageRoot;
  readonly status: DeviceStatus;
  /** How the image came to hold one instant. */
  readonly taken: 'snapshot' | 'frozen' | 'idle';
  /** All warnings of the job. */
  readonly warnings: readonly JobWarning[];
}

export async function describeDevice(device: Device, image: FinishedImage): Promise<PointDevice> {
  const { map, status, taken, warnings } = image;
  const identity = await deviceIdentity(device);
  const isTorn = warnings.some(({ code, device: about }) => about === device.path && tearing.has(code));
  return {
    path: device.path,
    size: device.size,
    sector_size: device.sectorSize,
    filesystem: filesystemOf(device),
    partition: partitionOf(device),
    ...(identity === undefined ? {} : { identity }),
    root: map.root,
    levels: map.levels,
    used_bytes: status.used_bytes,
    stored_bytes: status.bytes_stored ?? 0,
    freeze_ms: status.freeze_ms ?? 0,
    consistency: isTorn ? 'torn' : taken,
    tracker: status.tracker,
    kind: status.kind,
    read_errors: status.read_errors.map(({ offset, length }) => ({ offset, length })),
    read_only: device.readOnly,
  };
}

function filesystemOf({ filesystem }: Device): PointDevice['filesystem'] {
  return filesystem === undefined
    ? null
    : { type: filesystem.type, uuid: filesystem.uuid ?? '', label: filesystem.label ?? '' };
}

function partitionOf({ partition }: Device): PointDevice['partition'] {
  return partition === undefined
    ? null
    : { disk: partition.disk, number: partition.number, start: partition.start, uuid: partition.uuid ?? '' };
}
