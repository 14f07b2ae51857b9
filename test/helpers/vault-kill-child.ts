/**
 * A process that works on a vault in a directory and kills itself by SIGKILL at its Nth write to the store
 * (from 0). It dies before the write, during it, or after it. If there are fewer writes, it exits with 0.
 *
 *     scripts/node test/helpers/vault-kill-child.ts DIRECTORY INDEX backup|prune|repair N before|during|after
 */
import { repairVault } from '../../src/vault/check/repair.ts';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import { prune } from '../../src/vault/prune/prune.ts';
import { openDirectoryStore } from '../../src/vault/store/directory.ts';
import { type StoreRequest, WrappedStore } from '../../src/vault/store/wrapped-store.ts';
import { Vault } from '../../src/vault/vault.ts';
import { killedImages, killedKey, killedSize } from './vault-killed.ts';
import { backUp } from './vault-writer.ts';

type Moment = 'before' | 'during' | 'after';

class SuicidalStore extends WrappedStore {
  left = Infinity;
  moment: Moment = 'before';

  protected override async around<T>(what: StoreRequest, request: () => Promise<T>): Promise<T> {
    if ((what.kind !== 'put' && what.kind !== 'delete') || this.left-- !== 0) return request();
    if (this.moment === 'before') die();
    if (this.moment === 'during') {
      void request();
      await new Promise((resolve) => setTimeout(resolve, 1));
      die();
    }
    await request();
    die();
  }

  protected override walk<T>(
    _: StoreRequest,
    begin: (after: string | undefined) => AsyncIterable<T>,
  ): AsyncIterable<T> {
    return begin(undefined);
  }
}

function die(): never {
  process.kill(process.pid, 'SIGKILL');
  throw new Error('SIGKILL did not end the process');
}

const [directory, indexPath, action, count, moment] = process.argv.slice(2);
const store = new SuicidalStore(await openDirectoryStore(directory!));
const vault = await Vault.open(store, killedKey);
const index = ChunkIndex.open(indexPath!, vault.id);
store.left = Number(count);
store.moment = moment as Moment;
if (action === 'backup') await backUp(vault, index, { image: killedImages.next, size: killedSize });
else if (action === 'prune') await prune(vault, index);
else await repairVault(vault, index);
index.close();
