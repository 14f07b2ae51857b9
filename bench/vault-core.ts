/**
 * Measures how fast one thread writes chunks into packs and reads them back, in MiB/s of plain bytes. The store is in
 * memory, then in a directory.
 *
 *     scripts/node bench/vault-core.ts [MiB] [directory]
 *
 * "program" is the bytes of the Node binary, which compress to 0.39 of their size. "random" cannot be compressed.
 */
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MiB } from '../src/base/bytes.ts';
import { PointImage } from '../src/vault/image.ts';
import { newId } from '../src/vault/ids.ts';
import { ChunkIndex } from '../src/vault/index/chunk-index.ts';
import { refreshIndex } from '../src/vault/index/refresh.ts';
import { buildMap } from '../src/vault/maps/build.ts';
import { Namer } from '../src/vault/names.ts';
import { PackWriter } from '../src/vault/packs/pack-writer.ts';
import type { VaultCore } from '../src/vault/packs/vault-core.ts';
import { Secrets } from '../src/vault/secrets.ts';
import { openDirectoryStore } from '../src/vault/store/directory.ts';
import { openMemoryStore } from '../test/helpers/stores/memory-store.ts';
import type { ObjectStore } from '../src/vault/store/object-store.ts';

const chunkSize = 64 * 1024;
const amount = Number(process.argv[2] ?? 512) * MiB;
const scratch = mkdtempSync(join(process.argv[3] ?? tmpdir(), 'vault-core-'));

try {
  for (const [label, source] of [
    ['program', readFileSync(process.execPath).subarray(0, 64 * MiB)],
    ['random', randomBytes(64 * MiB)],
  ] as const) {
    await measure(`${label}, memory`, source, openMemoryStore());
    const directory = mkdtempSync(join(scratch, 'store-'));
    await measure(`${label}, directory`, source, await openDirectoryStore(directory, { create: true }));
    rmSync(directory, { recursive: true });
  }
} finally {
  rmSync(scratch, { recursive: true });
}

async function measure(label: string, source: Buffer, store: ObjectStore): Promise<void> {
  const id = newId();
  const secrets = Secrets.from(randomBytes(32), id);
  const vault: VaultCore = { name: label, id, store, secrets, chunkSize, packSize: 16 * MiB };
  const index = ChunkIndex.open(join(scratch, `${id}.sqlite`), id);
  const packs = new PackWriter(vault, index, { kind: 'chunks', writer: newId() });
  const namer = new Namer(secrets.chunkNameKey);
  const count = amount / chunkSize;
  const names = Buffer.alloc(count * 32);
  const chunk = Buffer.alloc(chunkSize);

  await time(`${label}: write`, amount, async () => {
    for (let at = 0; at < count; at++) {
      const from = (at * chunkSize) % source.length;
      source.copy(chunk, 0, from, from + chunkSize);
      chunk.writeUInt32LE(at, 100);
      const name = namer.name(chunk);
      name.copy(names, at * 32);
      const wait = packs.add(name, chunk);
      if (wait !== undefined) await wait;
    }
    await packs.seal();
  });
  await time(`${label}: write again`, amount, async () => {
    for (let at = 0; at < count; at++) await packs.add(names.subarray(at * 32, at * 32 + 32), chunk);
  });
  const pages = new PackWriter(vault, index, { kind: 'pages', writer: newId() });
  const { root, levels } = await buildMap({
    size: amount,
    chunkSize,
    changed: (first, length) => names.subarray(first * 32, (first + length) * 32),
    namer: new Namer(secrets.pageNameKey),
    pages,
  });
  await pages.seal();
  const device = { path: label, size: amount, root: root.toString('hex'), levels };
  for (const request of [128 * 1024, MiB]) {
    const image = PointImage.open(vault, index, device);
    await time(`${label}: read by ${request / 1024} KiB`, amount, async () => {
      for (let at = 0; at < amount; at += request) await image.read(at, request);
    });
  }
  await time(`${label}: walk all data`, amount, async () => {
    let bytes = 0;
    for await (const { data } of PointImage.open(vault, index, device).data()) bytes += data.length;
    if (bytes !== amount) throw new Error(`${bytes} of ${amount} bytes`);
  });
  index.close();
  const fresh = ChunkIndex.open(join(scratch, `${id}-fresh.sqlite`), id);
  await time(`${label}: rebuild the index`, amount, () => refreshIndex(vault, fresh));
  fresh.close();
}

async function time(label: string, bytes: number, work: () => Promise<unknown>): Promise<void> {
  const [began, cpu] = [performance.now(), process.cpuUsage()];
  await work();
  const seconds = (performance.now() - began) / 1000;
  const { user, system } = process.cpuUsage(cpu);
  const rss = (process.memoryUsage.rss() / MiB).toFixed(0);
  const used = (user + system) / 1e6;
  console.log(
    `${label.padEnd(36)} ${rate(bytes, seconds)} MiB/s, ${rate(bytes, used)} MiB a second of processor time, ` +
      `RSS ${rss} MiB`,
  );
}

function rate(bytes: number, seconds: number): string {
  return (bytes / MiB / seconds).toFixed(0).padStart(6);
}
