import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { GiB, MiB } from '../base/bytes.ts';
import { availableMemory } from './memory.ts';

const v2 = '35 24 0:30 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n';
const v1 = '36 24 0:31 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n';
const cpu = '37 24 0:32 / /sys/fs/cgroup/cpu rw,nosuid - cgroup cgroup rw,cpu,cpuacct\n';
const service = 'sys/fs/cgroup/system.slice/dattod.service';

/** Makes a tree of files. `proc/meminfo` has 8 GiB by default. */
function tree(t: TestContext, files: Readonly<Record<string, string | number>>): string {
  const root = mkdtempSync(join(tmpdir(), 'memory-test-'));
  t.after(() => rmSync(root, { recursive: true }));
  for (const [path, text] of Object.entries<string | number>({
    'proc/meminfo': 'MemAvailable:   8388608 kB\n',
    ...files,
  })) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), String(text));
  }
  return root;
}

/** Without any swap. */
const left = (bytes: number) => ({ bytes, withSwap: bytes });

test('cgroup v2: the lowest memory.max or memory.high of the group and its parents, without page cache', async (t) => {
  const files = {
    'proc/self/mountinfo': cpu + v2,
    'proc/self/cgroup': '0::/system.slice/dattod.service\n',
    [`${service}/memory.max`]: 'max\n',
    [`${service}/memory.high`]: 'max\n',
    [`${service}/memory.current`]: 90 * MiB,
  };
  assert.deepEqual(await availableMemory(tree(t, files)), {
    bytes: 8 * GiB,
    withSwap: 8 * GiB,
    group: undefined,
  });
  const slice = {
    ...files,
    'sys/fs/cgroup/system.slice/memory.max': 256 * MiB,
    'sys/fs/cgroup/system.slice/memory.high': 'max\n',
    'sys/fs/cgroup/system.slice/memory.current': 200 * MiB,
    'sys/fs/cgroup/system.slice/memory.stat': `anon 1\nactive_file ${10 * MiB}\ninactive_file ${90 * MiB}\n`,
  };
  assert.deepEqual(await availableMemory(tree(t, slice)), {
    ...left(156 * MiB),
    group: '/sys/fs/cgroup/system.slice',
  });
  const high = { ...slice, [`${service}/memory.high`]: 100 * MiB };
  assert.deepEqual(await availableMemory(tree(t, high)), { ...left(10 * MiB), group: `/${service}` });
});

test('cgroup v1: the group of the memory controller, its parents, and the file names of v1', async (t) => {
  const files = {
    'proc/self/mountinfo': cpu + v1 + v2,
    'proc/self/cgroup': '9:cpu,cpuacct:/elsewhere\n4:memory:/a/b\n0::/\n',
    'sys/fs/cgroup/memory/a/b/memory.limit_in_bytes': '9223372036854771712\n',
    'sys/fs/cgroup/memory/a/b/memory.usage_in_bytes': 40 * MiB,
    'sys/fs/cgroup/memory/a/memory.limit_in_bytes': 128 * MiB,
    'sys/fs/cgroup/memory/a/memory.usage_in_bytes': 120 * MiB,
    'sys/fs/cgroup/memory/a/memory.stat': `inactive_file 0\ntotal_inactive_file ${30 * MiB}\n`,
    'sys/fs/cgroup/memory/memory.limit_in_bytes': '9223372036854771712\n',
  };
  assert.deepEqual(await availableMemory(tree(t, files)), {
    ...left(38 * MiB),
    group: '/sys/fs/cgroup/memory/a',
  });
});

test('in a container: the mount shows only the own group, or the path is of another namespace', async (t) => {
  const limit = { 'sys/fs/cgroup/memory.max': 64 * MiB, 'sys/fs/cgroup/memory.current': 16 * MiB };
  const expected = { ...left(48 * MiB), group: '/sys/fs/cgroup' };
  const own = '35 24 0:30 /docker/x /sys/fs/cgroup ro - cgroup2 cgroup2 rw\n';
  for (const [mount, path] of [
    [own, '/docker/x'],
    [own, '/elsewhere'],
    [v2, '/'],
    [v2, '/../../docker/x'],
  ] as const)
    assert.deepEqual(
      await availableMemory(
        tree(t, { 'proc/self/mountinfo': mount, 'proc/self/cgroup': `0::${path}\n`, ...limit }),
      ),
      expected,
      path,
    );
});

test('swap of the machine counts up to the limit of the group', async (t) => {
  const meminfo = 'MemAvailable:   8388608 kB\nSwapFree:   1048576 kB\n';
  const inV2 = (swap: Record<string, string | number>) => ({
    'proc/meminfo': meminfo,
    'proc/self/mountinfo': v2,
    'proc/self/cgroup': '0::/x\n',
    'sys/fs/cgroup/x/memory.max': 100 * MiB,
    'sys/fs/cgroup/x/memory.current': 40 * MiB,
    ...swap,
  });
  const v1Files = {
    'proc/meminfo': meminfo,
    'proc/self/mountinfo': v1,
    'proc/self/cgroup': '4:memory:/x\n',
    'sys/fs/cgroup/memory/x/memory.limit_in_bytes': 100 * MiB,
    'sys/fs/cgroup/memory/x/memory.usage_in_bytes': 40 * MiB,
    'sys/fs/cgroup/memory/x/memory.memsw.limit_in_bytes': 120 * MiB,
    'sys/fs/cgroup/memory/x/memory.memsw.usage_in_bytes': 50 * MiB,
  };
  const swapIn = 'sys/fs/cgroup/x/memory.swap';
  for (const [files, withSwap] of [
    [inV2({}), GiB + 60 * MiB],
    [inV2({ [`${swapIn}.max`]: 'max\n' }), GiB + 60 * MiB],
    [inV2({ [`${swapIn}.max`]: 0, [`${swapIn}.current`]: 0 }), 60 * MiB],
    [inV2({ [`${swapIn}.max`]: 50 * MiB, [`${swapIn}.current`]: 20 * MiB }), 90 * MiB],
    [v1Files, 70 * MiB],
  ] as const) {
    const { bytes, withSwap: found } = await availableMemory(tree(t, files));
    assert.deepEqual([bytes, found], [60 * MiB, withSwap]);
  }
});

test('usage above the limit leaves nothing; without groups or limits, the memory of the machine is left', async (t) => {
  const over = {
    'proc/self/mountinfo': v2,
    'proc/self/cgroup': '0::/x\n',
    'sys/fs/cgroup/x/memory.max': 10 * MiB,
    'sys/fs/cgroup/x/memory.current': 11 * MiB,
  };
  assert.equal((await availableMemory(tree(t, over))).bytes, 0);
  assert.deepEqual(await availableMemory(tree(t, {})), {
    bytes: 8 * GiB,
    withSwap: 8 * GiB,
    group: undefined,
  });
  assert.ok((await availableMemory()).bytes > 0);
});
