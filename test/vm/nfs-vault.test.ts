/**
 * Proves the directory store on NFSv4, between two machines from the server's view. It runs the contract of
 * stores, and a backup into a vault there, which the other client restores and checks. It also shows with
 * which mount options one client sees at once the changes of the other; docs/vault.md depends on that.
 */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { randomUUID } from 'node:crypto';
import { after, test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { defaultJobOptions } from '../../src/backup/job.ts';
import { prepareJob } from '../../src/backup/prepare/prepare-job.ts';
import { MiB } from '../../src/base/bytes.ts';
import { silentLog } from '../../src/base/log.ts';
import { findDevice } from '../../src/devices/find.ts';
import { listDevices } from '../../src/devices/inventory.ts';
import { openDirectoryStore } from '../../src/vault/store/directory.ts';
import type { ObjectStore } from '../../src/vault/store/object-store.ts';
import { storeContract } from '../contracts/object-store.contract.ts';
import { collect } from '../helpers/collect.ts';
import { dattocliHere } from '../helpers/dattocli-here.ts';
import { sh } from './guest.ts';
import { mountNfs, startNfsServer, stopNfs } from './nfs.ts';

sh(
  'for m in loop ext4; do modprobe $m; done; mkfs.ext4 -q /dev/vda; mkdir /exported; mount /dev/vda /exported',
);
await startNfsServer('/exported');

/** The options that docs/vault.md requires. */
const documented = 'acdirmin=0,acdirmax=0,lookupcache=positive';
mountNfs('first', '/nfs/first', documented);
mountNfs('second', '/nfs/second', documented);
const mounted = ['/nfs/first', '/nfs/second'];
after(() => {
  stopNfs(mounted);
  sh('umount /exported || true');
});

let places = 0;
storeContract(
  'directory on NFSv4',
  async () => {
    const root = join('/nfs/first', `contract-${places++}`);
    const store = await openDirectoryStore(root, { create: true });
    return { store, close: () => rm(root, { recursive: true }) };
  },
  { manyKeys: 40, largest: MiB },
);

/** Milliseconds until the reader sees the writer's change; 0: at once. */
interface Seen {
  /** A new object in a list. */
  readonly listed: number;
  /** A new object that was looked up before it existed. */
  readonly found: number;
  /** The bytes of an object that was replaced, and its size. */
  readonly replaced: number;
  readonly resized: number;
  /** A deleted object that existed when it was looked up. */
  readonly gone: number;
}

/**
 * Returns the milliseconds until the condition is true, at most `mostMs`. Returns 0 if it is true at the
 * first check.
 */
async function timeUntil(is: () => Promise<boolean>, mostMs: number): Promise<number> {
  const started = performance.now();
  if (await is()) return 0;
  while (performance.now() - started < mostMs) {
    await sleep(200);
    if (await is()) return Math.round(performance.now() - started);
  }
  return Infinity;
}

/**
 * Before each change the reader's caches hold data that becomes stale by it. Only the reader's question
 * refreshes them.
 */
async function look(writer: ObjectStore, reader: ObjectStore, name: string, mostMs: number): Promise<Seen> {
  const until = (is: () => Promise<boolean>): Promise<number> => timeUntil(is, mostMs);
  const keys = async (): Promise<string[]> => (await collect(reader.list('points/'))).map(({ key }) => key);
  const [a, b, c] = ['a', 'b', 'c'].map((each) => `points/${name}-${each}`) as [string, string, string];
  await keys();
  await writer.put(a, Buffer.from('one'));
  const listed = await until(async () => (await keys()).includes(a));
  await reader.head(b);
  await writer.put(b, Buffer.from('one'));
  const found = await until(async () => (await reader.head(b)) !== undefined);
  await reader.get(b);
  await writer.put(b, Buffer.from('two'));
  const replaced = await until(async () => (await reader.get(b)).toString() === 'two');
  await writer.put(c, Buffer.from('one'));
  await keys();
  await reader.head(c);
  await writer.put(c, Buffer.from('larger'));
  const resized = await until(async () => (await reader.head(c))?.size === 6);
  await reader.head(c);
  await writer.delete(c);
  const gone = await until(async () => (await reader.head(c)) === undefined);
  return { listed, found, replaced, resized, gone };
}

const none: Seen = { listed: 0, found: 0, replaced: 0, resized: 0, gone: 0 };

/** Measured for the page. The delay differs between kernels, but every change becomes visible. */
const others = [
  '',
  'lookupcache=positive',
  'acdirmin=0,acdirmax=0',
  documented,
  `acregmin=0,acregmax=0,${documented}`,
  'actimeo=0',
  'noac',
];

test(
  'with the documented options one client sees at once the changes of the other',
  { timeout: 300_000 },
  async () => {
    console.log(`# the contract ran ${places} tests`);
    const root = 'visible';
    const writer = await openDirectoryStore(join('/nfs/first', root), { create: true });
    await writer.put('vault.json', Buffer.from('{}'));
    const reader = await openDirectoryStore(join('/nfs/second', root));
    for (let round = 0; round < 5; round++)
      assert.deepEqual(await look(writer, reader, `round-${round}`, 60_000), none);
  },
);

test(
  'with any options, every change becomes visible; the delay is printed',
  { timeout: 900_000 },
  async () => {
    const root = 'options';
    const writer = await openDirectoryStore(join('/nfs/first', root), { create: true });
    await writer.put('vault.json', Buffer.from('{}'));
    for (const [number, options] of others.entries()) {
      const place = `/nfs/with-${number}`;
      mountNfs('second', place, options);
      mounted.push(place);
      const reader = await openDirectoryStore(join(place, root));
      const seen = await look(writer, reader, `with-${number}`, 70_000);
      console.log(`# ${options || 'defaults'}: ${JSON.stringify(seen)}`);
      assert.ok(
        Object.values(seen).every(Number.isFinite),
        `with ${options || 'defaults'} all shows in the end`,
      );
    }
  },
);

test(
  'a backup into a vault there, restored and checked by the other client',
  { timeout: 600_000 },
  async () => {
    const stateDirectory = '/tmp/nfs-state';
    const runDirectory = '/run/nfs-run';
    for (const each of [stateDirectory, runDirectory]) mkdirSync(each, { recursive: true });
    sh(
      'mkfs.ext4 -q /dev/vdb; mkdir /source; mount /dev/vdb /source; head -c 6M /dev/urandom >/source/random; umount /source',
    );
    const at = ['--state-dir', stateDirectory];
    const made = await dattocliHere(['vault', 'init', 'vault:/nfs/first/vault', ...at]);
    assert.equal(made.code, 0, made.err);
    const devices = await listDevices();
    const prepared = await prepareJob(
      {
        uuid: randomUUID(),
        kind: 'full',
        pairs: [{ device: await findDevice(devices, '/dev/vdb'), target: 'vault:/nfs/first/vault' }],
        devices,
        options: { ...defaultJobOptions, tracker: 'none' },
      },
      {
        log: silentLog(),
        holdWhileFrozen: [],
        stateDirectory,
        runDirectory,
        vaults: { vaults: {}, stateDirectory },
      },
    );
    const status = await prepared.start().done;
    assert.deepEqual([status.state, status.error, status.warnings], ['SUCCEEDED', null, []]);

    const there = ['--vault', 'vault:/nfs/second/vault', ...at];
    const restored = await dattocliHere(['restore', 'latest', '--to', '/tmp/restored', ...there]);
    assert.equal(restored.code, 0, restored.err);
    sh(
      'e2fsck -fn /tmp/restored; mkdir /a /b; mount -o ro,noload /dev/vdb /a; mount -o ro,noload,loop /tmp/restored /b',
    );
    sh('diff -r /a /b; umount /a /b');
    const checked = await dattocliHere(['vault', 'check', ...there]);
    assert.equal(checked.code, 0, `${checked.err}${checked.out}`);
  },
);
