/** Counts the writes that a device's disks have done, and how long they took (Documentation/block/stat.rst). */
import { attributeOf, lowestDisksOf, placeOf } from './block-place.ts';
import type { Device } from './device.ts';

export interface WriteCounters {
  readonly writes: number;
  /** Milliseconds that these writes took in total, including their time in the queue. */
  readonly ms: number;
}

/**
 * Returns a function that reads the counters. They are those of the whole disks below the device, since programs that
 * write to other parts of a disk wait for our reads as well. The function returns undefined for files, and once a disk
 * is gone. Without `queue/iostats` the counters stand still.
 */
export function openWriteCounters(
  device: Pick<Device, 'kind' | 'major' | 'minor'>,
  sys = '/sys',
): () => WriteCounters | undefined {
  const place = device.kind === 'file' ? undefined : placeOf(device, sys);
  if (place === undefined) return () => undefined;
  const disks = lowestDisksOf(place);
  return () => {
    const sum = { writes: 0, ms: 0 };
    for (const disk of disks) {
      const fields = attributeOf(disk, 'stat')?.trim().split(/\s+/).map(Number);
      if (fields === undefined) return undefined;
      sum.writes += fields[4] ?? 0;
      sum.ms += fields[7] ?? 0;
    }
    return sum;
  };
}
