/**
 * Debian's kernels for the virtual machine, by series. The current version of a series is read from the
 * archive's index at run time, since old versions vanish from it. apt downloads them with a separate
 * configuration under the cache directory, which uses the mirror of this machine's apt. Unpacked kernels stay
 * there:
 *
 *     CACHE/apt/SERIES/     lists and downloads of apt
 *     CACHE/kernels/PACKAGE_VERSION/    boot/ and lib/modules/ of the package
 */
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { exec } from '../helpers/exec.ts';

/**
 * Each series with the suite of the security archive that has it, and the package that depends on the current
 * version.
 */
const series = {
  '5.10': { suite: 'bullseye-security', meta: 'linux-image-amd64' },
  '6.1': { suite: 'bookworm-security', meta: 'linux-image-amd64' },
  '6.12': { suite: 'bookworm-security', meta: 'linux-image-6.12-amd64' },
} as const;

export type KernelSeries = keyof typeof series;
export const kernelSeries = Object.keys(series) as KernelSeries[];

export interface Kernel {
  /** For example `6.1.0-56-amd64`. */
  readonly release: string;
  readonly image: string;
  /** The folder that holds lib/modules/RELEASE. */
  readonly root: string;
}

/** Milliseconds after which an index is fetched again. */
const indexLife = 24 * 3600_000;
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';

export function cacheDirectory(): string {
  return join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'dattod-vm');
}

/**
 * Returns the current kernel of a series, unpacked. If the archive does not answer, returns the newest one
 * that was unpacked earlier.
 */
export async function findKernel(name: KernelSeries): Promise<Kernel> {
  const cache = cacheDirectory();
  const kernels = join(cache, 'kernels');
  await mkdir(kernels, { recursive: true });
  let current: { name: string; version: string };
  const apt = await privateApt(name, join(cache, 'apt', name));
  try {
    current = await resolvePackage(apt, series[name].meta);
  } catch (thrown) {
    const earlier = await newestUnpacked(kernels, name);
    if (earlier === undefined) throw thrown;
    return earlier;
  }
  const place = join(kernels, `${current.name}_${current.version}`);
  if (!existsSync(place)) await download(apt, current, place);
  return describe(place);
}

interface Apt {
  readonly directory: string;
  readonly options: readonly string[];
}

async function privateApt(name: KernelSeries, directory: string): Promise<Apt> {
  await mkdir(join(directory, 'lists/partial'), { recursive: true });
  await mkdir(join(directory, 'cache/archives/partial'), { recursive: true });
  const sources = join(directory, 'sources.list');
  const { stdout } = await exec('apt-get', [
    'indextargets',
    '--format',
    '$(REPO_URI) $(RELEASE)',
    'Created-By: Packages',
  ]);
  const line = stdout.split('\n').find((each) => each.endsWith('-security'));
  if (line === undefined)
    throw new Error(
      'apt of this machine has no Debian security archive, whose address is needed for kernels',
    );
  const signed = existsSync(keyring) ? `[signed-by=${keyring}] ` : '';
  const text = `deb ${signed}${line.split(' ')[0]!} ${series[name].suite} main\n`;
  await writeFile(sources, text);
  const options = [
    `Dir::Etc::sourcelist=${sources}`,
    'Dir::Etc::sourceparts=/dev/null',
    `Dir::State::lists=${join(directory, 'lists')}`,
    `Dir::Cache=${join(directory, 'cache')}`,
    'Dir::State::status=/dev/null',
    'APT::Sandbox::User=root',
    'APT::Architecture=amd64',
    'Acquire::Check-Valid-Until=false',
    'Acquire::Languages=none',
  ].flatMap((option) => ['-o', option]);
  return { directory, options };
}

async function resolvePackage(apt: Apt, meta: string): Promise<{ name: string; version: string }> {
  const stamp = join(apt.directory, 'updated');
  const age = Date.now() - ((await stat(stamp).catch(() => undefined))?.mtimeMs ?? 0);
  if (age > indexLife) {
    await exec('apt-get', [...apt.options, 'update', '-qq', '--error-on=any'], { timeoutMs: 120_000 });
    await writeFile(stamp, '');
  }
  const { stdout } = await exec('apt-cache', [...apt.options, 'show', '--no-all-versions', meta]);
  const found = /^Depends:.*?(linux-image-[\w.+-]+)(?: \(= ([^)]+)\))?/m.exec(stdout);
  if (found === null) throw new Error(`the archive's index has no ${meta} that depends on a kernel`);
  const name = found[1]!;
  const policy = await exec('apt-cache', [...apt.options, 'policy', name]);
  const version = found[2] ?? /Candidate: (\S+)/.exec(policy.stdout)?.[1];
  if (version === undefined) throw new Error(`the archive's index has no version of ${name}`);
  return { name, version };
}

async function download(apt: Apt, what: { name: string; version: string }, place: string): Promise<void> {
  const work = await mkdtemp(join(apt.directory, 'unpack-'));
  try {
    const wanted = `${what.name}=${what.version}`;
    await exec('apt-get', [...apt.options, 'download', '-qq', wanted], { cwd: work, timeoutMs: 300_000 });
    const [deb] = (await readdir(work)).filter((file) => file.endsWith('.deb'));
    if (deb === undefined) throw new Error(`apt-get download ${wanted} left no package behind`);
    const unpacked = join(work, 'root');
    await exec('dpkg-deb', ['-x', join(work, deb), unpacked]);
    const [release] = await readdir(join(unpacked, 'lib/modules'));
    await exec('depmod', ['-b', unpacked, release!]);
    await rename(unpacked, place).catch((thrown: unknown) => {
      // Another test run was quicker.
      if (!existsSync(place)) throw thrown;
    });
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

async function newestUnpacked(kernels: string, name: KernelSeries): Promise<Kernel | undefined> {
  const places = (await readdir(kernels))
    .filter((each) => each.startsWith(`linux-image-${name}.`))
    .sort((a, b) => a.localeCompare(b, 'en', { numeric: true }));
  const last = places.at(-1);
  return last === undefined ? undefined : describe(join(kernels, last));
}

async function describe(root: string): Promise<Kernel> {
  const [release] = await readdir(join(root, 'lib/modules'));
  if (release === undefined) throw new Error(`${root} holds no kernel modules`);
  return { release, image: join(root, 'boot', `vmlinuz-${release}`), root };
}
