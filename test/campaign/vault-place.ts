/**
 * A vault of a random history: its points, their expected content, and a reader of the points with a separate
 * index.
 */
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { PointImageSpec } from '../../src/restore/image/point-image.ts';
import { PointImage } from '../../src/vault/image.ts';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { refreshIndex } from '../../src/vault/index/refresh.ts';
import { newKeyFileText } from '../../src/vault/key-material.ts';
import { keyFileOf, type OpenedVault, openVault } from '../../src/vault/opening.ts';
import { PartReader } from '../../src/vault/packs/part-reader.ts';
import type { Point, PointDevice } from '../../src/vault/points/point.ts';
import { listPoints } from '../../src/vault/points/points.ts';
import { openDirectoryStore } from '../../src/vault/store/directory.ts';
import { Vault } from '../../src/vault/vault.ts';
import { exec } from '../helpers/exec.ts';
import type { Expected } from './expected.ts';

export interface VaultPlaces {
  readonly directory: string;
  /** The state directory of the daemon, with the keys. */
  readonly stateDirectory: string;
  readonly scratch: string;
}

export class VaultPlace {
  readonly #places: VaultPlaces;
  readonly #opened: OpenedVault;
  readonly #index: ChunkIndex;
  /** Maps the point's ID and the device's path to the expected content. */
  readonly #expected: Map<string, Map<string, Expected>>;

  private constructor(
    places: VaultPlaces,
    opened: OpenedVault,
    expected: Map<string, Map<string, Expected>>,
  ) {
    this.#places = places;
    this.#opened = opened;
    this.#expected = expected;
    const indexes = join(places.scratch, 'judge-index');
    mkdirSync(indexes, { recursive: true });
    this.#index = ChunkIndex.open(join(indexes, places.directory.replaceAll('/', '_')), opened.vault.id);
  }

  static async make(places: VaultPlaces): Promise<VaultPlace> {
    const text = newKeyFileText();
    const store = await openDirectoryStore(places.directory, { create: true });
    const { id } = await Vault.init(store, {
      cost: { N: 1024, p: 1 },
      keys: [{ material: { kind: 'file', text } }],
    });
    await store.close();
    const keyFile = keyFileOf(id, places);
    mkdirSync(dirname(keyFile), { recursive: true, mode: 0o700 });
    writeFileSync(keyFile, text, { mode: 0o600 });
    return new VaultPlace(places, await VaultPlace.#open(places), new Map());
  }

  static #open({ directory, stateDirectory }: VaultPlaces): Promise<OpenedVault> {
    return openVault({ kind: 'directory', path: directory }, { vaults: {}, stateDirectory });
  }

  /** Returns a copy of the vault at another place, as `cp` copies it. */
  async copiedTo(directory: string): Promise<VaultPlace> {
    await exec('cp', ['--archive', this.#places.directory, directory]);
    const places = { ...this.#places, directory };
    return new VaultPlace(places, await VaultPlace.#open(places), new Map(this.#expected));
  }

  get target(): string {
    return `vault:${this.#places.directory}`;
  }

  get stateDirectory(): string {
    return this.#places.stateDirectory;
  }

  async close(): Promise<void> {
    this.#index.close();
    await this.#opened.vault.store.close();
    rmSync(this.#places.directory, { recursive: true, force: true });
    rmSync(join(this.#places.scratch, 'judge-index'), { recursive: true, force: true });
  }

  async points(): Promise<readonly Point[]> {
    return (await listPoints(this.#opened.vault)).points;
  }

  expect(point: string, device: string, expected: Expected): void {
    const devices = this.#expected.get(point) ?? new Map<string, Expected>();
    devices.set(device, expected);
    this.#expected.set(point, devices);
  }

  expectedOf(point: string, device: string): Expected | undefined {
    return this.#expected.get(point)?.get(device);
  }

  /** The points that the judge found right, in the order of their jobs. */
  get known(): readonly string[] {
    return [...this.#expected.keys()];
  }

  /** Returns the devices of a known point. */
  devicesOf(point: string): readonly string[] {
    return [...(this.#expected.get(point)?.keys() ?? [])];
  }

  /** Records that the point was forgotten, and may be missing from now on. */
  forgotten(point: string): void {
    this.#expected.delete(point);
  }

  /** Writes a device of a point to a file. Blocks that the point does not hold become holes. */
  async dump(device: PointDevice, path: string): Promise<void> {
    const { vault } = this.#opened;
    await refreshIndex(vault, this.#index);
    const image = new PointImage(new PartReader(vault, this.#index), device, vault.chunkSize);
    const file = await open(path, 'w');
    try {
      await file.truncate(device.size);
      for await (const { offset, data } of image.data()) await file.write(data, 0, data.length, offset);
    } finally {
      await file.close();
    }
  }

  /** Returns the image that restore and mount take. */
  specOf({ path, size, root, levels }: PointDevice): PointImageSpec {
    const { location, settings, indexPath, vault } = this.#opened;
    const secrets = vault.secrets.toMessage();
    return { kind: 'point', location, settings, secrets, indexPath, source: { path, size, root, levels } };
  }
}
