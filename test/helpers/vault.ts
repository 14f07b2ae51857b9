/**
 * A vault in a directory, with its key in the place where the daemon reads it, and the images of its points
 * as files.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { PointImage } from '../../src/vault/image.ts';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { refreshIndex } from '../../src/vault/index/refresh.ts';
import { newKeyFileText } from '../../src/vault/key-material.ts';
import { type OpenedVault, keyFileOf, openVault } from '../../src/vault/opening.ts';
import { PartReader } from '../../src/vault/packs/part-reader.ts';
import type { Point, PointDevice } from '../../src/vault/points/point.ts';
import { listPoints } from '../../src/vault/points/points.ts';
import { openDirectoryStore } from '../../src/vault/store/directory.ts';
import { type InitOptions, Vault } from '../../src/vault/vault.ts';
import { scratchFor } from './backup.ts';
import { atEnd, type EndingTest } from './cleanup.ts';

export interface TestDirectoryVault {
  readonly directory: string;
  /** `vault:/…` */
  readonly target: string;
  /** Returns the points, the earliest first. */
  points(): Promise<readonly Point[]>;
  /** Writes the device of the point to a file. Ranges that the point does not hold become holes. */
  dump(device: PointDevice, path: string): Promise<void>;
  open(): Promise<OpenedVault>;
}

/** `stateDirectory`: of the daemon that needs the key. `parent`: of the vault; default on a tmpfs. */
export async function vaultFor(
  t: EndingTest,
  stateDirectory: string,
  { parent, ...options }: Omit<InitOptions, 'keys'> & { readonly parent?: string } = {},
): Promise<TestDirectoryVault> {
  const directory = join(parent ?? scratchFor(t, { memory: true }), 'vault');
  const text = newKeyFileText();
  const store = await openDirectoryStore(directory, { create: true });
  const { id } = await Vault.init(store, {
    cost: { N: 1024, p: 1 },
    ...options,
    keys: [{ material: { kind: 'file', text } }],
  });
  await store.close();
  const keyFile = keyFileOf(id, { stateDirectory });
  mkdirSync(dirname(keyFile), { recursive: true, mode: 0o700 });
  writeFileSync(keyFile, text, { mode: 0o600 });
  const opened = await openVault({ kind: 'directory', path: directory }, { vaults: {}, stateDirectory });
  atEnd(t, () => opened.vault.store.close());
  const { vault } = opened;
  // The index is a separate one, so the check does not depend on the daemon's own index.
  const index = ChunkIndex.open(join(scratchFor(t), 'index'), id);
  atEnd(t, () => index.close());
  return {
    directory,
    target: `vault:${directory}`,
    points: async () => (await listPoints(vault)).points,
    open: () => openVault({ kind: 'directory', path: directory }, { vaults: {}, stateDirectory }),
    dump: async (device, path) => {
      await refreshIndex(vault, index);
      const image = new PointImage(new PartReader(vault, index), device, vault.chunkSize);
      const file = await open(path, 'w');
      try {
        await file.truncate(device.size);
        for await (const { offset, data } of image.data()) await file.write(data, 0, data.length, offset);
      } finally {
        await file.close();
      }
    },
  };
}
