/**
 * Which devices and targets running jobs hold. Two jobs exclude each other where they name the same device, or
 * two of which one lies on the other (a disk and its partition, a volume and what it is made of), or the same
 * target. Siblings on one disk are disjoint. Within one job a loop device and the filesystem that holds its
 * file are no conflict.
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
  /** The same, but not through the file behind a loop device: what shares its bytes with the device directly. */
  readonly sameBytes: ReadonlySet<string>;
}

export interface Reservation {
  readonly uuid: string;
  readonly claims: readonly Claim[];
}

export class Reservations {
  readonly #held = new Set<Reservation>();

  /**
   * Claims the devices of a job, all or none. Throws BAD_USAGE where the job collides with itself and
   * DEVICE_BUSY where it collides with another.
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

/** A vault takes many devices side by side. */
function sameTarget(one: Claim, other: Claim): boolean {
  return one.target === other.target && !isVaultLocation(one.target);
}

/** One job may hold a filesystem on a loop device together with the one that holds its file: both freeze. */
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
