/** The facts in sysfs about a device's queue (Documentation/ABI/stable/sysfs-block) that tracing depends on. */
import { realpath, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { attribute } from '../../linux/sysfs.ts';
import type { Following } from './follower.ts';
import { unseenHolder } from './identity.ts';

export interface TracedQueue {
  /** `/dev/…` of the whole disk. */
  readonly path: string;
  /** Kernel name of the whole disk, with `!` instead of a slash. */
  readonly name: string;
  readonly following: Following;
}

/** Throws NOT_SUPPORTED for a device whose writes blktrace cannot see, DEVICE_GONE if there is no such device. */
export async function inspectQueue(
  disk: { readonly major: number; readonly minor: number },
  about: string,
  sys = '/sys',
): Promise<TracedQueue> {
  const place = await realpath(join(sys, 'dev/block', `${disk.major}:${disk.minor}`)).catch(
    (cause: unknown) => {
      throw new AgentError('DEVICE_GONE', `${about} is gone`, { hint: 'start the job again', cause });
    },
  );
  // If the caller did not name the disk of a partition, the partition itself would be traced; but its queue is the
  // disk's.
  const whole = (await attribute(place, 'partition')) === undefined ? place : dirname(place);
  const name = basename(whole);
  const following = await howToFollow(whole, about);
  return { path: join('/dev', name.replaceAll('!', '/')), name, following };
}

async function howToFollow(place: string, about: string): Promise<Following> {
  const queue = join(place, 'queue');
  const zoned = (await attribute(queue, 'zoned')) ?? 'none';
  if (zoned !== 'none')
    throw new AgentError(
      'NOT_SUPPORTED',
      `${about} is a zoned device (${zoned}): blktrace does not show zone resets`,
      {
        hint: 'it is backed up by comparing fingerprints',
      },
    );
  if (await isRequestBased(place))
    return Number((await attribute(queue, 'max_discard_segments')) ?? 1) > 1
      ? 'requests-discards'
      : 'requests';
  const unseen = unseenHolder(place);
  if (unseen !== undefined)
    throw new AgentError('NOT_SUPPORTED', unseen, { hint: 'back up the device on top of it' });
  return 'bios';
}

/** Returns true for a queue of requests: it has a folder `mq` or, before Linux 5.0, a scheduler. */
async function isRequestBased(place: string): Promise<boolean> {
  const mq = await stat(join(place, 'mq')).catch(() => undefined);
  if (mq?.isDirectory() === true) return true;
  const scheduler = await attribute(join(place, 'queue'), 'scheduler');
  return scheduler !== undefined && scheduler.trim() !== 'none';
}
