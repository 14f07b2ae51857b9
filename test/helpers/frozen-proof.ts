/**
 * Proves that an image is the device at one instant. A hook copies the device while it is frozen. The image
 * has to equal the copy in all used blocks, and to be whole without any recovery.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { join } from 'node:path';
import { scratchFor, scriptIn } from './backup.ts';
import type { EndingTest } from './cleanup.ts';
import { assertSameUsed, assertWhole, type FilesystemName } from './image-proof.ts';
import { readStamp } from './stamps.ts';

export interface FrozenProofOptions {
  readonly type: FilesystemName;
  /** Bytes. */
  readonly size: number;
  readonly device: string;
  /** The file of the backup's target. */
  readonly image: string;
}

export interface FrozenProof {
  /** Options of `startbackup` with which the job makes the copy. The copy takes some time. */
  readonly args: readonly string[];
  /** Compares after a job with `args` has ended. `what` is for the message. */
  assertSame(what: string): Promise<void>;
}

export async function frozenProof(t: EndingTest, options: FrozenProofOptions): Promise<FrozenProof> {
  const { type, size, device, image } = options;
  const reference = join(scratchFor(t, { memory: true }), 'reference');
  const hook = await scriptIn(scratchFor(t), 'copy-device', [
    `dd if=${device} of=${reference} bs=1M iflag=direct conv=sparse status=none`,
  ]);
  return {
    args: ['--frozen-hook', hook, '--max-freeze', '20s'],
    assertSame: async (what) => {
      try {
        await assertSameUsed(type, reference, image, size);
      } catch (thrown) {
        throw new Error(`not the frozen device ${what}: ${differences(reference, image, size)}`, {
          cause: thrown,
        });
      }
      await assertWhole(type, image, 'frozen');
    },
  };
}

/** Returns which stamped sectors differ, and which writes they come from. */
function differences(reference: string, image: string, size: number): string {
  const files = [reference, image].map((path) => openSync(path, 'r'));
  try {
    const sectors = files.map(() => Buffer.alloc(512));
    const told: string[] = [];
    let newest = 0;
    let count = 0;
    for (let offset = 0; offset < size; offset += 512) {
      for (const [index, file] of files.entries()) readSync(file, sectors[index]!, 0, 512, offset);
      const [onDevice, inImage] = sectors.map((sector) => readStamp(sector)?.write);
      newest = Math.max(newest, onDevice ?? 0);
      if (sectors[0]!.equals(sectors[1]!) || (onDevice ?? inImage) === undefined) continue;
      count++;
      if (told.length < 20) told.push(`${offset} (write ${onDevice ?? 'none'}, ${inImage ?? 'none'})`);
    }
    return `${count} stamped sectors differ; the newest write on the device is ${newest}; at ${told.join(', ')}`;
  } finally {
    for (const file of files) closeSync(file);
  }
}
