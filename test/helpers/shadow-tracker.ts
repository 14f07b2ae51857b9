/**
 * A tracker without help of the kernel. It keeps a copy of each device and reports the blocks that differ
 * from the copy. Its state lies in a directory and outlives the daemon, like pinned maps.
 *
 * A block that was changed and changed back is not reported. So it is for tests that write while no job runs,
 * or that never write the same bytes twice.
 *
 * Tests control it by files in the directory, named by the device's numbers (`7:3.end`):
 *
 * - `.end`: the epoch has ended, for the reason in the file. The file is removed when a new epoch has begun.
 * - `.end-frozen`: the same at the next take inside a freeze. `.end-later`: at the second take from now on.
 * - `.refuse`: the device cannot be tracked, for the reason in the file.
 */
import { randomUUID } from 'node:crypto';
import fs from 'node:fs';
import { join } from 'node:path';
import { Bitmap } from '../../src/base/bitmap.ts';
import { MiB } from '../../src/base/bytes.ts';
import { AgentError, errnoCode } from '../../src/base/errors.ts';
import { alignedBuffer } from '../../src/linux/aligned.ts';
import type { TrackerCandidate } from '../../src/tracking/tracker-registry.ts';
import { type Generation, newGeneration } from '../../src/tracking/generation.ts';
import type {
  DeviceNumbers,
  Epoch,
  Taken,
  TrackedDevice,
  TrackedEpoch,
  Tracker,
  TrackingState,
} from '../../src/tracking/tracker.ts';

const unit = 4096;
const readAtOnce = 256 * 1024;

interface Known {
  readonly epoch: Epoch;
  readonly generation: Generation;
  readonly device: TrackedDevice;
}

class ShadowTracker implements Tracker {
  readonly kind = 'test';
  readonly #directory: string;

  constructor(directory: string) {
    this.#directory = directory;
    fs.mkdirSync(directory, { recursive: true });
  }

  async track(device: TrackedDevice): Promise<TrackedEpoch & { doubt: string | undefined }> {
    await Promise.resolve();
    const refusal = this.#steered(device, 'refuse');
    if (refusal !== undefined)
      throw new AgentError('NOT_SUPPORTED', refusal, { hint: 'remove the file of the test' });
    const known = this.#known(device);
    const doubt = known && this.doubt(device);
    if (known !== undefined && doubt === undefined) return { ...known, doubt };
    fs.rmSync(this.#path(device, 'end'), { force: true });
    const shadow = fs.openSync(this.#path(device, 'shadow'), 'w');
    try {
      eachPiece(device, (data, offset) => fs.writeSync(shadow, data, 0, data.length, offset));
    } finally {
      fs.closeSync(shadow);
    }
    const fresh = { epoch: { id: randomUUID(), since: Date.now() }, generation: newGeneration(), device };
    this.#write(fresh);
    return { ...fresh, doubt };
  }

  async take(device: TrackedDevice, options: { readonly frozen?: boolean } = {}): Promise<Taken> {
    await Promise.resolve();
    const later = this.#steered(device, 'end-later');
    if (later !== undefined) fs.renameSync(this.#path(device, 'end-later'), this.#path(device, 'end'));
    const reason =
      (later === undefined ? this.doubt(device) : undefined) ??
      (options.frozen === true ? this.#steered(device, 'end-frozen') : undefined);
    const known = this.#known(device);
    if (reason !== undefined || known === undefined) {
      fs.renameSync(this.#path(device, 'json'), this.#path(device, 'old'));
      throw new AgentError(
        'EPOCH_ENDED',
        `${device.path}: writes may have been missed: ${reason ?? 'not tracked'}`,
      );
    }
    const dirty = new Bitmap(device.size, unit);
    const changed: { offset: number; data: Buffer }[] = [];
    const shadow = fs.openSync(this.#path(device, 'shadow'), 'r');
    try {
      const before = Buffer.alloc(MiB);
      eachPiece(device, (data, offset) => {
        fs.readSync(shadow, before, 0, data.length, offset);
        if (data.equals(before.subarray(0, data.length))) return;
        for (let at = 0; at < data.length; at += unit) {
          const block = data.subarray(at, at + unit);
          if (block.equals(before.subarray(at, at + block.length))) continue;
          dirty.mark(offset + at, block.length);
          changed.push({ offset: offset + at, data: Buffer.from(block) });
        }
      });
    } finally {
      fs.closeSync(shadow);
    }
    return {
      epoch: known.epoch,
      generation: known.generation,
      dirty,
      commit: (next) => {
        this.#write({ ...known, generation: next });
        const file = fs.openSync(this.#path(device, 'shadow'), 'r+');
        for (const { offset, data } of changed) fs.writeSync(file, data, 0, data.length, offset);
        fs.closeSync(file);
        return true;
      },
    };
  }

  state(device: TrackedDevice): TrackingState | undefined {
    const known = this.#known(device);
    return (
      known && { kind: 'test', epoch: known.epoch, unit, memory: device.size, pinned: true, dirtyBytes: 0 }
    );
  }

  doubt(device: TrackedDevice): string | undefined {
    const known = this.#known(device);
    const differs =
      known && (['size', 'uuid', 'diskSequence'] as const).find((key) => known.device[key] !== device[key]);
    return (
      this.#steered(device, 'end') ??
      (known &&
        differs &&
        `its ${differs} is ${device[differs] ?? ''} now and was ${known.device[differs] ?? ''}`)
    );
  }

  async untrack(device: DeviceNumbers): Promise<void> {
    await Promise.resolve();
    for (const what of ['shadow', 'json', 'old', 'end']) fs.rmSync(this.#path(device, what), { force: true });
  }

  tracked(): TrackedDevice[] {
    return fs
      .readdirSync(this.#directory)
      .filter((name) => name.endsWith('.json'))
      .map((name) => readKnown(join(this.#directory, name))!.device);
  }

  async stop(): Promise<void> {
    for (const device of this.tracked()) await this.untrack(device);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #write(known: Known): void {
    fs.writeFileSync(this.#path(known.device, 'json'), JSON.stringify(known));
  }

  #known(device: DeviceNumbers): Known | undefined {
    return readKnown(this.#path(device, 'json'));
  }

  #steered(device: DeviceNumbers, what: string): string | undefined {
    try {
      return fs.readFileSync(this.#path(device, what), 'utf8').trim();
    } catch {
      return undefined;
    }
  }

  #path({ major, minor }: DeviceNumbers, what: string): string {
    return join(this.#directory, `${major}:${minor}.${what}`);
  }
}

export function shadowCandidate(directory: string): TrackerCandidate {
  return {
    kind: 'test',
    support: () => Promise.resolve({ supported: true, why: 'a copy is kept', help: '' }),
    open: () => Promise.resolve(new ShadowTracker(directory)),
    leftSomething: () => fs.existsSync(directory) && fs.readdirSync(directory).length > 0,
  };
}

function readKnown(path: string): Known | undefined {
  try {
    return JSON.parse(fs.readFileSync(path, 'utf8')) as Known;
  } catch {
    return undefined;
  }
}

/** Reads the device as it is on the disk. */
function eachPiece(device: TrackedDevice, visit: (data: Buffer, offset: number) => void): void {
  const fd = fs.openSync(device.path, fs.constants.O_RDONLY | fs.constants.O_DIRECT);
  const buffer = alignedBuffer(MiB);
  try {
    for (let offset = 0; offset < device.size; offset += MiB) {
      const length = Math.min(MiB, device.size - offset);
      buffer.fill(0);
      // Data that cannot be read counts as unchanged.
      for (let at = 0; at < length; at += readAtOnce)
        try {
          fs.readSync(fd, buffer, at, Math.min(readAtOnce, length - at), offset + at);
        } catch (thrown) {
          if (errnoCode(thrown) !== 'EIO') throw thrown;
        }
      visit(buffer.subarray(0, length), offset);
    }
  } finally {
    fs.closeSync(fd);
  }
}
