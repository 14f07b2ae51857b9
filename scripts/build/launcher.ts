/**
 * The launchers: small sh scripts that run a program with the Node runtime beside them. They follow symbolic links to
 * find their own folder, so that `ln -s /opt/agent/build/dattocli /usr/bin/` works.
 */
import { nodeFlags } from '../../src/base/entry.ts';

const always = [
  ...nodeFlags,
  // A small young generation of the heap saves 6 MB in an idle dattod. No program here allocates fast enough to need
  // more.
  '--max-semi-space-size=1',
];

/**
 * Flags of the command alone. The heaps of threads that restore start small, and V8 would collect garbage at each MiB: a
 * restore of 250 MiB took 0.86 s instead of 0.73. The memory that a process holds stays the same.
 */
const commandFlags = ['--initial-heap-size=40'];

/**
 * The programs that write their result to standard output. If that is closed, Node opens /dev/null in its place, and
 * the result would be lost. So the launcher opens a descriptor that cannot be written, and the program fails.
 */
const resultPrograms: readonly string[] = ['dattocli', 'fsawarebdcopy', 'in_use_sectors'];
const closedOutput = `# A closed standard output must not swallow the result: writing to this one fails.
{ command : 3>&1; } 2>/dev/null || exec 1</dev/null
`;

/**
 * Number of threads in Node's pool in the daemon. A system call on a filesystem that hangs keeps its thread
 * (src/base/bounded-call.ts), and so does a request to a target that hangs. The other jobs must continue.
 */
const daemonThreads = 64;

/**
 * Limit of open files for the daemon, if root can raise it. Each device of a job takes some 40 (threads, source,
 * target, fingerprints), and some systems allow a process only 1024.
 */
const daemonFiles = 65_536;

export function launcher(name: string, debug: boolean): string {
  const own = name === 'dattocli' ? commandFlags : [];
  const flags = [...always, ...own, ...(debug ? ['--enable-source-maps'] : [])].join(' ');
  const limits =
    name === 'dattod'
      ? `export UV_THREADPOOL_SIZE=${daemonThreads}\n[ "$(ulimit -n)" = unlimited ] || [ "$(ulimit -H -n)" -ge ${daemonFiles} ] || ulimit -n ${daemonFiles} 2>/dev/null || :\n`
      : '';
  return `#!/bin/sh
# ${name}, on the Node runtime beside it. Made by ./one_step_build.
self=$0
while [ -L "$self" ]; do
  link=$(readlink "$self")
  case $link in
  /*) self=$link ;;
  *) self=$(dirname "$self")/$link ;;
  esac
done
case $self in
*/*) here=\${self%/*} ;;
*) here=. ;;
esac
unset NODE_OPTIONS
# Each arena of glibc's malloc keeps what its threads have freed; two serve two busy threads.
export MALLOC_ARENA_MAX=2
# Large buffers go back to the kernel when they are freed; by default glibc keeps them after the first.
export MALLOC_MMAP_THRESHOLD_=1048576
# A core dump would hold the keys of vaults and what was read from disks.
ulimit -S -c 0
${resultPrograms.includes(name) ? closedOutput : ''}${limits}exec "$here/runtime/node" ${flags} "$here/lib/${name}.js" "$@"
`;
}
