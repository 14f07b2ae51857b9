/**
 * The disk or file that a device number stands for now. A job reads a device for hours. In the meantime the device may
 * grow or shrink, and its number may be given to another disk or file.
 */
import { readFileSync, realpathSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { AgentError } from '../base/errors.ts';
import type { Device } from './device.ts';

export interface Attachment {
  /** Bytes. */
  readonly size: number;
  /** Values by name that differ if another disk or file has the same number. The names are shown to the user. */
  readonly marks: Readonly<Record<string, string>>;
}

type Attached = Pick<Device, 'kind' | 'path' | 'major' | 'minor'>;

/** Reads the attachment. Undefined if the device is gone. Does not wait, so it may be called during a freeze. */
export function readAttachment(device: Attached, sys = '/sys'): Attachment | undefined {
  if (device.kind === 'file') return readFile(device.path);
  let place: string;
  try {
    place = realpathSync(join(sys, 'dev/block', `${device.major}:${device.minor}`));
  } catch {
    return undefined;
  }
  const sectors = attribute(place, 'size');
  if (sectors === undefined) return undefined;
  const start = attribute(place, 'start');
  const disk = start === undefined ? place : dirname(place);
  const sequence = attribute(disk, 'diskseq');
  return {
    size: Number(sectors) * 512,
    marks: present({
      // Changes with each attachment, and if a loop device gets another file (Linux 5.15).
      'disk sequence number': sequence,
      // A file may be renamed, so its path counts only if there is no sequence number.
      'backing file': sequence === undefined ? attribute(disk, 'loop/backing_file') : undefined,
      'offset in the backing file': attribute(disk, 'loop/offset'),
      'first sector': start,
      'device-mapper UUID': attribute(place, 'dm/uuid'),
    }),
  };
}

/** Throws DEVICE_GONE if the device is gone, has another size, or is another device than `before` describes. */
export function refuseChanged(device: Attached, before: Attachment, sys?: string): void {
  const now = readAttachment(device, sys);
  if (now === undefined) throw changed(`${device.path} is gone since the backup of it began`);
  if (now.size !== before.size)
    throw changed(
      `${device.path} has ${now.size} bytes now, and had ${before.size} when the backup of it began`,
    );
  for (const mark of new Set([...Object.keys(before.marks), ...Object.keys(now.marks)]))
    if (now.marks[mark] !== before.marks[mark])
      throw changed(
        `${device.path} is another device than when the backup of it began: its ${mark} is ` +
          `${now.marks[mark] ?? 'none'} now, and was ${before.marks[mark] ?? 'none'}`,
      );
}

function changed(message: string): AgentError {
  return new AgentError('DEVICE_GONE', message, { hint: 'start the backup again' });
}

function readFile(path: string): Attachment | undefined {
  const node = statSync(path, { throwIfNoEntry: false });
  return node === undefined ? undefined : { size: node.size, marks: { inode: `${node.dev}:${node.ino}` } };
}

function attribute(place: string, name: string): string | undefined {
  try {
    return readFileSync(join(place, name), 'utf8').replace(/\n$/, '');
  } catch {
    return undefined;
  }
}

function present(marks: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(marks).filter((entry): entry is [string, string] => entry[1] !== undefined),
  );
}
