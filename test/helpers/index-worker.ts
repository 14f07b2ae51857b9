/** A thread that stores its own packs in an index that other threads use at the same time. */
import { parentPort, workerData } from 'node:worker_threads';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { newId } from '../../src/vault/ids.ts';

export interface IndexWorkerData {
  readonly path: string;
  readonly vaultId: string;
  readonly thread: number;
  readonly packs: number;
  readonly parts: number;
}

/** Returns the name of a part, which is the same in every thread. */
export function partName(thread: number, pack: number, part: number): Buffer {
  const name = Buffer.alloc(32);
  name.writeUInt32BE(Math.imul(thread * 1_000_003 + pack * 1009 + part, 2654435761) >>> 0);
  name.writeUInt16LE(thread, 8);
  name.writeUInt16LE(pack, 12);
  name.writeUInt16LE(part, 16);
  return name;
}

if (parentPort !== null) {
  const { path, vaultId, thread, packs, parts } = workerData as IndexWorkerData;
  const index = ChunkIndex.open(path, vaultId);
  let misses = 0;
  for (let pack = 0; pack < packs; pack++) {
    const place = { encodedLength: 10, plainLength: 20, encoding: 1 } as const;
    const ours = Array.from({ length: parts }, (_, part) => ({
      name: partName(thread, pack, part),
      offset: 32 + part * 26,
      ...place,
    }));
    const head = { id: newId(), kind: 'chunks', writer: newId(), created: pack, size: 5000 } as const;
    index.addPack({ ...head, parts: ours });
    for (const { name } of ours) if (!index.has(name)) misses++;
  }
  index.close();
  parentPort.postMessage(misses);
}
