/**
 * The launchers: small sh scripts that find themselves also through symbolic links (so that
 * `ln -s /opt/agent/build/dattocli /usr/bin/` works) and become the program on the runtime beside them.
 */
import { nodeFlags } from '../../src/base/entry.ts';

const always = [
  ...nodeFlags,
  // A small nursery: 6 MB less for an idle dattod, and nothing here allocates fast enough to miss it.
  '--max-semi-space-size=1',
];

/**
 * Programs whose result is on standard output. Node opens /dev/null in the place of a closed one, and a result would
 * vanish there; a descriptor that cannot be written makes the program fail instead.
 */
const resultPrograms: readonly string[] = ['dattocli', 'fsawarebdcopy', 'in_use_sectors'];
const closedOutput = `# A closed standard output must not swallow the result: writing to this one fails.
{ command : 3>&1; } 2>/dev/null || exec 1</dev/null
`;

/**
 * Threads of Node's pool in the daemon. A system call on a filesystem that hangs keeps its thread
 * (src/base/bounded-call.ts); the requests of jobs whose targets hang do so too, and the rest has to go on.
 */
const daemonThreads = 64;

/**
 * Open files that the daemon may have, if root can raise the limit: each device of a job takes some 40 (threads, source,
 * target, fingerprints), and some systems allow a process 1024.
 */
const daemonFiles = 65_536;

export function launcher(name: string, debug: boolean): string {
  const flags = [...always, ...(debug ? ['--enable-source-maps'] : [])].join(' ');
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
