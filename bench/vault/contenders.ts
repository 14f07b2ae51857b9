/** The tools that are timed: our vault with the built programs, restic, and borg. Each has a store in a directory. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { daemonPaths, isHealthy } from '../../test/helpers/daemon.ts';
import { exec } from '../../test/helpers/exec.ts';
import { waitFor } from '../../test/helpers/nbd-process.ts';
import type { VaultSource } from './source.ts';

export interface Timed {
  readonly seconds: number;
  /** Peak memory, MiB. */
  readonly peak: number;
}

export interface Measured {
  first: Timed;
  /** The backup after 1 % of the device was written in pieces of 1 MiB. */
  second?: Timed;
  /** The backup after 1 % was written in blocks of 4 KiB: the hardest case, because each block costs a whole chunk. */
  third?: Timed;
  restore?: Timed;
  /** Size of the store after the third backup, bytes. */
  stored?: number;
}

export interface Session {
  backUp(): Promise<Timed>;
  stored(): Promise<number>;
  restore(to: string): Promise<Timed>;
  end(): Promise<void>;
}

export interface Contender {
  readonly name: string;
  begin(directory: string, source: VaultSource): Promise<Session>;
}

const build = fileURLToPath(new URL('../../build/', import.meta.url));

/** The first contender is ours, because the ratios compare with the first. */
export const contenders: readonly Contender[] = [
  { name: 'vault', begin: ours },
  {
    name: 'restic',
    begin: (directory, source) =>
      peer(directory, source, {
        init: `restic init --repository-version 2`,
        backUp: `restic backup --quiet --stdin --stdin-filename disk < ${source.device}`,
        restore: (to) => `restic dump latest disk > ${to}`,
        environment: `RESTIC_REPOSITORY=${directory}/store RESTIC_PASSWORD=p RESTIC_CACHE_DIR=${directory}/cache`,
      }),
  },
  {
    name: 'borg',
    begin: (directory, source) =>
      peer(directory, source, {
        init: `borg init -e repokey`,
        backUp: `borg create --read-special --compression zstd ::{now:%s%f} ${source.device}`,
        restore: (to) => `borg extract --stdout ::$(borg list --short --last 1) > ${to}`,
        environment:
          `BORG_REPO=${directory}/store BORG_PASSPHRASE=p BORG_BASE_DIR=${directory}/cache ` +
          'BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes',
      }),
  },
];

async function peer(
  directory: string,
  source: VaultSource,
  tool: { init: string; backUp: string; restore: (to: string) => string; environment: string },
): Promise<Session> {
  await mkdir(directory);
  const run = (command: string): Promise<Timed> => timed(`export ${tool.environment}; ${command}`);
  await run(tool.init);
  return {
    backUp: () => source.unmounted(() => run(tool.backUp)),
    stored: () => sizeOf(join(directory, 'store')),
    restore: (to) => run(tool.restore(to)),
    end: async () => {
      await exec('rm', ['-rf', directory]);
    },
  };
}

async function ours(directory: string, source: VaultSource): Promise<Session> {
  await mkdir(directory);
  const paths = daemonPaths();
  const daemon = spawn(join(build, 'dattod'), ['--foreground', ...paths.arguments], { stdio: 'ignore' });
  const ended = once(daemon, 'exit');
  await waitFor(() => isHealthy(paths.socket), 'dattod answers');
  const cli = join(build, 'dattocli');
  const vault = `--vault vault:${directory}/store --state-dir ${paths.stateDirectory}`;
  await exec(cli, ['vault', 'init', `vault:${directory}/store`, '--state-dir', paths.stateDirectory]);
  let kind = '--full';
  return {
    backUp: async () => {
      const { seconds } = await timed(
        `${cli} --socket ${paths.socket} startbackup ${kind} --wait --device ${source.device} --target vault:${directory}/store`,
      );
      kind = '--incremental';
      const status = await readFile(`/proc/${daemon.pid!}/status`, 'utf8');
      return { seconds, peak: Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024 };
    },
    stored: () => sizeOf(join(directory, 'store')),
    restore: (to) => timed(`${cli} restore latest --to ${to} ${vault}`),
    end: async () => {
      daemon.kill('SIGTERM');
      await ended;
      await exec('rm', ['-rf', paths.directory, paths.pinDirectory, directory]);
    },
  };
}

/** Times a shell command and its children with GNU time. */
async function timed(command: string): Promise<Timed> {
  const { stderr } = await exec('/usr/bin/time', ['-f', '\n%e %M', 'bash', '-o', 'pipefail', '-c', command], {
    timeoutMs: 1_800_000,
  });
  const [seconds = 0, peak = 0] = stderr.trim().split('\n').at(-1)!.split(' ').map(Number);
  return { seconds, peak: peak / 1024 };
}

async function sizeOf(directory: string): Promise<number> {
  const { stdout } = await exec('du', ['-s', '--block-size=1', directory]);
  return Number.parseInt(stdout, 10);
}
