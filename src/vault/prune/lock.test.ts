import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { backUp } from '../../../test/helpers/vault-writer.ts';
import { AgentError } from '../../base/errors.ts';
import { repairVault } from '../check/repair.ts';
import { ChunkIndex } from '../index/chunk-index.ts';
import { addKey, removeKey } from '../keys.ts';
import { forgetPoint, listPoints, protectPoint, unprotectPoint } from '../points/points.ts';
import { openMemoryStore } from '../../../test/helpers/stores/memory-store.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { Vault } from '../vault.ts';
import { PrunerLock, withPrunerLock } from './lock.ts';
import { prune } from './prune.ts';
import { listAtWork, unlockVault } from './unlock.ts';

const scratch = mkdtempSync(join(tmpdir(), 'vault-lock-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

/**
 * Returns a vault with a point, and a store with credentials that may delete only the keys that `mayDelete` accepts.
 */
async function appendOnly(mayDelete: (key: string) => boolean = () => false) {
  const store = openMemoryStore();
  const key = { material: { kind: 'passphrase', passphrase: 'x' } } as const;
  const cost = { N: 1024, p: 1 };
  const vault = await Vault.init(store, { keys: [key], cost, chunkSize: 4096 });
  const limited: ObjectStore = {
    ...store,
    delete: (name, options) =>
      mayDelete(name)
        ? store.delete(name, options)
        : Promise.reject(new AgentError('VAULT_DENIED', `deleting ${name}: not allowed`)),
  };
  const agent = await Vault.open(limited, vault.secrets);
  const index = ChunkIndex.open(join(scratch, `${vault.id}.sqlite`), vault.id);
  after(() => index.close());
  const point = await backUp(agent, index, { image: new Map([[0, Buffer.alloc(4096, 'a')]]), size: 65536 });
  const locks = (): string[] => [...store.objects.keys()].filter((name) => name.startsWith('locks/'));
  return { vault, agent, index, point, locks, key, cost };
}

const denied = { code: 'VAULT_DENIED', hint: /with delete permission/ };

test('credentials that may not delete are refused before there is a lock, and block no other process', async () => {
  const { vault, agent, index, point, locks } = await appendOnly();
  await assert.rejects(prune(agent, index), denied);
  await assert.rejects(repairVault(agent, index), denied);
  assert.equal(locks().length, 2);
  assert.ok(locks().every((name) => name.endsWith('.beat')));
  assert.deepEqual(await listAtWork(vault), { writers: [], locks: [] });
  assert.equal((await prune(agent, index, { dryRun: true })).points, 1);

  const ownerState = () => Promise.resolve('unknown' as const);
  assert.equal((await prune(vault, index, { ownerState })).points, 1);
  assert.deepEqual(locks(), [], 'the pruner removes the leftovers');
  assert.deepEqual(
    (await listPoints(vault)).points.map(({ id }) => id),
    [point.id],
  );
});

test('every command that deletes reports missing delete permission', async () => {
  const { vault, agent, point, key, cost } = await appendOnly();
  await assert.rejects(forgetPoint(agent, point.id), denied);
  await protectPoint(agent, point.id);
  await assert.rejects(unprotectPoint(agent, point.id), denied);
  const added = await addKey(agent, key.material, { kind: 'passphrase', passphrase: 'y' }, { cost });
  await assert.rejects(removeKey(agent, added.id), denied);
  const lock = await PrunerLock.take(vault, { what: 'prune' });
  await assert.rejects(unlockVault(agent, lock.id), denied);
  await lock.release();
});

test('if the delete permission is revoked in the meantime, the remaining lock is reported', async () => {
  let isAllowed = true;
  const { vault, agent, locks } = await appendOnly((name) => isAllowed && name.startsWith('locks/'));
  let id = '';
  const work = (lock: PrunerLock): Promise<string> => {
    isAllowed = false;
    id = lock.id;
    return Promise.resolve('done');
  };
  const stays = (error: AgentError): boolean =>
    error.code === 'VAULT_DENIED' && error.message.includes(id) && error.hint!.includes(`vault unlock ${id}`);
  await assert.rejects(withPrunerLock(agent, { what: 'prune' }, work), stays);
  await unlockVault(vault, id);
  assert.deepEqual(locks(), []);

  isAllowed = true;
  const failing = async (lock: PrunerLock): Promise<void> => {
    await work(lock);
    throw new AgentError('VAULT_DAMAGED', 'first');
  };
  await assert.rejects(withPrunerLock(agent, { what: 'prune' }, failing), (error: AgentError) => {
    assert.match(error.message, /^first; then: the lock [0-9a-f]{32} was not removed/);
    return error.code === 'VAULT_DAMAGED' && error.hint!.includes(id);
  });
});

test('the lock is removed if the work under it fails', async () => {
  const { vault, locks } = await appendOnly();
  const failure = new Error('no');
  await assert.rejects(
    withPrunerLock(vault, { what: 'repair' }, () => Promise.reject(failure)),
    failure,
  );
  assert.deepEqual(locks(), []);
});
