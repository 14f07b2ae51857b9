/** Stores image files in a vault, for tests of restoring: no devices, no threads, no point document. */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { openFileImage } from '../../src/restore/image/file-image.ts';
import type { PointImageSpec } from '../../src/restore/image/point-image.ts';
import { isZero } from '../../src/base/bytes.ts';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { newId } from '../../src/vault/ids.ts';
import { buildMap } from '../../src/vault/maps/build.ts';
import { Namer, nameLength } from '../../src/vault/names.ts';
import { PackWriter } from '../../src/vault/packs/pack-writer.ts';
import { openStore } from '../../src/vault/store/open-store.ts';
import { Vault } from '../../src/vault/vault.ts';

/**
 * Makes a vault in `directory` that holds the image. `keep` (by offset and length of a chunk) leaves out
 * chunks, like those that a filesystem does not use.
 */
export async function storeImage(
  directory: string,
  path: string,
  keep: (offset: number, length: number) => boolean = () => true,
): Promise<PointImageSpec> {
  mkdirSync(directory, { recursive: true });
  const location = { kind: 'directory', path: join(directory, 'vault') } as const;
  const store = await openStore(location, { create: true });
  const key = { kind: 'passphrase', passphrase: 'x' } as const;
  const vault = await Vault.open(store, key).catch(() =>
    Vault.init(store, { keys: [{ material: key }], cost: { N: 1024, p: 1 } }),
  );
  const indexPath = join(directory, 'index.sqlite');
  const index = ChunkIndex.open(indexPath, vault.id);
  const image = await openFileImage(path);
  try {
    const { chunkSize } = vault;
    const chunkCount = Math.ceil(image.size / chunkSize);
    const names = Buffer.alloc(chunkCount * nameLength);
    const namer = new Namer(vault.secrets.chunkNameKey);
    const writer = newId();
    const chunks = new PackWriter(vault, index, { kind: 'chunks', writer, level: 1 });
    for await (const { offset, length } of image.extents())
      for (let at = offset - (offset % chunkSize); at < offset + length; at += chunkSize) {
        const bytes = Math.min(chunkSize, image.size - at);
        if (!keep(at, bytes)) continue;
        const data = Buffer.alloc(chunkSize);
        await image.readInto(data.subarray(0, bytes), at);
        if (isZero(data)) continue;
        const name = Buffer.from(namer.name(data));
        name.copy(names, (at / chunkSize) * nameLength);
        await chunks.add(name, data);
      }
    await chunks.seal();
    const pages = new PackWriter(vault, index, { kind: 'pages', writer });
    const built = await buildMap({
      size: image.size,
      chunkSize,
      changed: (first, count) =>
        Buffer.from(names.subarray(first * nameLength, (first + count) * nameLength)),
      namer: new Namer(vault.secrets.pageNameKey),
      pages,
    });
    await pages.seal();
    return {
      kind: 'point',
      location,
      settings: {},
      secrets: vault.secrets.toMessage(),
      indexPath,
      source: { path, size: image.size, root: built.root.toString('hex'), levels: built.levels },
    };
  } finally {
    await image.close();
    index.close();
    await store.close();
  }
}
