/**
 * The second half of ./quickstart: recovery points in a vault. A full backup makes the first point. Then some files are
 * changed, and an incremental backup sends only these to the second point. One file and the whole device are restored
 * from the second point, and the content is proven to be that at the freeze.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Cleanup } from './cleanup.ts';
import { listEverything } from './frozen-list.ts';
import { command, tryCommand, visibly } from './processes.ts';
import { proveImage } from './prove.ts';

export interface VaultStage {
  /** Path of the built dattocli. */
  readonly dattocli: string;
  readonly socket: string;
  readonly configuration: string;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  readonly device: string;
  readonly mountPoint: string;
  /** A directory on a disk. */
  readonly work: string;
  /** A directory in memory. */
  readonly memory: string;
  readonly cleanup: Cleanup;
  readonly say: (line: string) => void;
}

/** The fields of `dattocli points --json` that are used here. */
interface Points {
  readonly points: readonly {
    readonly id: string;
    readonly devices: readonly { readonly kind: string; readonly stored_bytes: number }[];
  }[];
}

/** Writes the configuration of the daemon and returns its path. The default vault is a directory on a disk. */
export function writeConfiguration(memory: string, work: string): string {
  const path = join(memory, 'config.json');
  writeFileSync(path, JSON.stringify({ vaults: { default: { location: `vault:${join(work, 'vault')}` } } }));
  return path;
}

/** Makes the points and restores from them. Returns whether all restored data is proven to be right. */
export async function showVault(stage: VaultStage): Promise<boolean> {
  const { say, work, memory, mountPoint, cleanup } = stage;
  const vault = ['--config', stage.configuration, '--state-dir', stage.stateDirectory];
  const dattocli = async (...args: string[]): Promise<void> => {
    console.log(`$ dattocli ${args.join(' ')}`);
    const place = args[0] === 'startbackup' ? ['--socket', stage.socket] : vault;
    const code = await visibly(stage.dattocli, [...args, ...place]);
    if (code !== 0 && code !== 5)
      throw new Error(`dattocli ${args[0] ?? ''} ended with exit code ${code ?? '?'}`);
  };

  say('recovery points: a vault, a first point, some files changed, and a second point');
  await dattocli('vault', 'init');
  await dattocli('startbackup', '--full', '--wait', '--device', stage.device);
  changeFiles(mountPoint);
  await command('sync', ['--file-system', mountPoint]);
  const frozen = join(memory, 'second');
  mkdirSync(frozen);
  const list = listEverything(mountPoint, frozen);
  await dattocli(
    ...['startbackup', '--incremental', '--wait', '--device', stage.device, '--frozen-hook', list.hook],
  );
  await dattocli('points');
  const { points } = JSON.parse(await command(stage.dattocli, ['points', '--json', ...vault])) as Points;
  const [first, second] = points;
  if (first === undefined || second === undefined) throw new Error('the vault does not have two points');

  say('getting one file and the whole device back');
  const findings = [await oneFile(stage, second.id, vault)];
  const image = join(work, 'restored.img');
  cleanup.add(`remove ${image}`, () => rm(image, { force: true }));
  await dattocli('restore', 'latest', '--to', image);
  const places = join(work, 'restored');
  mkdirSync(places, { recursive: true });
  const proof = await proveImage(image, list, places, cleanup);
  for (const finding of [...findings, ...proof.findings]) console.log(`  ${finding}`);
  return proof.proven && findings.every((finding) => !finding.startsWith('WRONG'));
}

const changed = 'changed by quickstart';

/** Writes some megabytes, so that the amount that an incremental sends can be seen. */
function changeFiles(mountPoint: string): void {
  mkdirSync(join(mountPoint, changed));
  for (let number = 0; number < 8; number++)
    writeFileSync(join(mountPoint, changed, `file ${number}`), Buffer.alloc(256 * 1024, `${number} file `));
}

/** Restores one file and returns the result as a line. If this machine cannot mount a point, that is not a failure. */
async function oneFile(
  { dattocli, work, runDirectory, mountPoint }: VaultStage,
  point: string,
  vault: readonly string[],
) {
  const to = join(work, 'files');
  const path = `/${changed}/file 7`;
  const args = ['restore', '--files', point, path, '--to', to];
  console.log(`$ dattocli restore --files ${point} '${path}' --to ${to}`);
  const { code, output } = await tryCommand(
    dattocli,
    [...args, '--json', '--run-dir', runDirectory, ...vault],
    {
      interruptible: true,
    },
  );
  if (code !== 0 && /"code":"(NOT_SUPPORTED|MOUNT_FAILED)"/.test(output))
    return `--    single files come out of a mount, and nothing can be mounted here: ${output}`;
  if (code !== 0) throw new Error(output);
  const same = readFileSync(join(to, path)).equals(readFileSync(join(mountPoint, path)));
  return `${same ? 'ok   ' : 'WRONG'} ${path} is byte for byte what it was`;
}
