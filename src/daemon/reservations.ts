/**
 * The devices and targets that running jobs hold. Two jobs exclude each other if they name the same device or the same
 * target. They also exclude each other if a device of one lies on a device of the other: a disk and its partition, or
 * a volume and its members. Two partitions of one disk are disjoint. Within one job, a loop device and the filesystem
 * that holds its file do not conflict.
 */
import type { DevicePair } from '../backup/job.ts';
import { AgentError } from '../base/errors.ts';
import type { Device } from '../devices/device.ts';
import { isVaultLocation } from '../vault/store/location.ts';

export interface Claim {
  readonly kernelName: string;
  readonly path: string;
  readonly target: string;
  /** Kernel names of the device and of everything that it lies on. */
  readonly lineage: ReadonlySet<string>;
  /** As `lineage`, but not through the file behind a loop device: devices that share bytes with this one directly. */
  readonly sameBytes: ReadonlySet<string>;
}

export interface Reservation {
  readonly uuid: string;
  readonly claims: readonly Claim[];
}

export class Reservations {
  readonly #held = new Set<Reservation>();

  /**
   * Claims the devices of a job, all or none. Throws BAD_USAGE if the job collides with itself, and DEVICE_BUSY if it
   * collides with another job.
   */
  reserve(uuid: string, pairs: readonly DevicePair[], devices: readonly Device[]): Reservation {
    const claims = pairs.map(({ device, target }) => ({
      kernelName: device.kernelName,
      path: device.path,
      target,
      lineage: lineage(device, devices, true),
      sameBytes: lineage(device, devices, false),
    }));
    for (const [index, claim] of claims.entries()) {
      for (const earlier of claims.slice(0, index)) refuseWithin(claim, earlier);
      for (const other of this.#held) for (const held of other.claims) refuseBeside(claim, held, other.uuid);
    }
    const reservation = { uuid, claims };
    this.#held.add(reservation);
    return reservation;
  }

  release(reservation: Reservation): void {
    this.#held.delete(reservation);
  }
}

function lineage(device: Device, devices: readonly Device[], throughFiles: boolean): ReadonlySet<string> {
  const byName = new Map(devices.map((each) => [each.kernelName, each]));
  const names = new Set<string>();
  const walk = (name: string) => {
    if (names.has(name)) return;
    names.add(name);
    const each = byName.get(name);
    if (throughFiles || each?.backingFile === undefined) each?.lowers.forEach(walk);
  };
  walk(device.kernelName);
  return names;
}

function overlap(one: Claim, other: Claim): boolean {
  return one.lineage.has(other.kernelName) || other.lineage.has(one.kernelName);
}

/** True if both jobs write to one target. A vault is no conflict: it takes many devices at the same time. */
function sameTarget(one: Claim, other: Claim): boolean {
  return one.target === other.target && !isVaultLocation(one.target);
}

/**
 * Refuses two devices of one job that collide. The job may hold a filesystem on a loop device together with the
 * filesystem that holds the loop device's file: the job freezes both.
 */
function refuseWithin(claim: Claim, earlier: Claim): void {
  if (claim.sameBytes.has(earlier.kernelName) || earlier.sameBytes.has(claim.kernelName))
    throw new AgentError(
      'BAD_USAGE',
      claim.kernelName === earlier.kernelName
        ? `${claim.path} is named twice in one backup`
        : `${claim.path} and ${earlier.path} lie on one another`,
      { hint: 'back each up once' },
    );
  if (sameTarget(claim, earlier))
    throw new AgentError('BAD_USAGE', `${claim.path} and ${earlier.path} are both to go to ${claim.target}`, {
      hint: 'give each device a target of its own',
    });
}

function refuseBeside(claim: Claim, held: Claim, uuid: string): void {
  const hint = `wait for job ${uuid}, or end it with 'dattocli stopbackup ${uuid}'`;
  if (overlap(claim, held))
    throw new AgentError(
      'DEVICE_BUSY',
      claim.kernelName === held.kernelName
        ? `Device is already being backed up: ${claim.path}`
        : `Device is already being backed up: ${claim.path} and ${held.path} lie on one another`,
      { hint },
    );
  if (sameTarget(claim, held))
    throw new AgentError('DEVICE_BUSY', `The target ${claim.target} is being written by another job`, {
      hint,
    });
}
