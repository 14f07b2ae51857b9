/**
 * Lists the files of the source at the freeze, and compares an image with the list. A hook writes the list while all
 * filesystems of the job are frozen, so the list lies in memory and never on a frozen filesystem. The hook uses only
 * find and b2sum, so that the proof does not depend on the agent.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { command, tryCommand } from './processes.ts';

export interface FrozenList {
  /** Path of the executable for `--frozen-hook`. */
  readonly hook: string;
  /** Returns the time that the hook took, milliseconds. Undefined if the hook has not run yet. */
  tookMs(): number | undefined;
  /** Compares the tree under `mountPoint` with the list. */
  compare(mountPoint: string): Promise<Comparison>;
}

export interface Comparison {
  /** Files whose contents were compared. */
  readonly files: number;
  /** The differences, one line each, for people. */
  readonly differences: readonly string[];
}

const path = 'export PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C';
/** Lists the attributes of each entry, without its access time. */
const listing = String.raw`find . -xdev -printf '/%P\t%y\t%m\t%U:%G\t%s\t%T@\t->%l\n' | sort`;

/** Lists every entry and checksums every file under `mountPoint`. `memory` is a folder on a tmpfs. */
export function listEverything(mountPoint: string, memory: string): FrozenList {
  const sums = 'find . -xdev -type f -print0 | xargs -0 -r b2sum';
  return frozenList(memory, mountPoint, `${listing} >"$to/listing"\n${sums} >"$to/sums"`);
}

/**
 * Checksums a sample of smaller files during the freeze. The sample is chosen and read once before the freeze, so that
 * the hook takes very little of it. The hook stops after one second.
 */
export async function listSample(mountPoint: string, memory: string): Promise<FrozenList> {
  const sample = join(memory, 'sample');
  const script = `${path}; cd "$1" && timeout 10 find . -xdev -type f -size -256k -print0 | shuf -z -n 1000 >"$2"
     timeout 20 xargs -0 -r -n 50 b2sum <"$2" >/dev/null`;
  await tryCommand('sh', ['-c', script, 'sh', mountPoint, sample], { interruptible: true });
  return frozenList(memory, mountPoint, `timeout 1 xargs -0 -r -n 20 b2sum <"$to/sample" >"$to/sums"`);
}

function frozenList(memory: string, mountPoint: string, body: string): FrozenList {
  const hook = join(memory, 'frozen-hook');
  writeFileSync(
    hook,
    `#!/bin/sh
# Runs while the filesystem is frozen; writes to memory only.
${path}
to=${quote(memory)}
start=$(date +%s%N)
cd ${quote(mountPoint)} || exit 1
${body}
echo $((($(date +%s%N) - start) / 1000000)) >"$to/took"
exit 0
`,
    { mode: 0o700 },
  );
  const read = (name: string) =>
    existsSync(join(memory, name)) ? readFileSync(join(memory, name), 'utf8') : undefined;
  return {
    hook,
    tookMs: () => {
      const took = read('took');
      return took === undefined ? undefined : Number(took);
    },
    compare: async (image) => {
      const differences: string[] = [];
      const listed = read('listing');
      if (listed !== undefined) {
        const now = await command('sh', ['-c', `${path}; cd "$1" && ${listing}`, 'sh', image]);
        differences.push(...differentLines(listed.trimEnd(), now));
      }
      // The last line is dropped, because the hook may have been stopped in the middle of it.
      const sums = (read('sums') ?? '').split('\n').slice(0, -1);
      writeFileSync(join(memory, 'check'), sums.map((line) => `${line}\n`).join(''));
      if (sums.length > 0) {
        const script = `${path}; cd "$1" && b2sum --check --quiet "$2"`;
        const { code, output } = await tryCommand('sh', ['-c', script, 'sh', image, join(memory, 'check')], {
          interruptible: true,
        });
        if (code !== 0)
          differences.push(...output.split('\n').filter((line) => !line.startsWith('b2sum: WARN')));
      }
      return { files: sums.length, differences };
    },
  };
}

function differentLines(expected: string, found: string): string[] {
  const before = new Set(expected.split('\n'));
  const after = new Set(found.split('\n'));
  return [
    ...[...before].filter((line) => !after.has(line)).map((line) => `only at the freeze: ${line}`),
    ...[...after].filter((line) => !before.has(line)).map((line) => `only in the image: ${line}`),
  ];
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}
