/**
 * The launchers: small sh scripts that find themselves also through symbolic links (so that
 * `ln -s /opt/agent/build/dattocli /usr/bin/` works) and become the program on the runtime beside them.
 */

const always = [
  // node:sqlite still announces itself as experimental on every start; nobody at a terminal needs that.
  '--disable-warning=ExperimentalWarning',
  // A small nursery: 6 MB less for an idle dattod, and nothing here allocates fast enough to miss it.
  '--max-semi-space-size=1',
];

export function launcher(name: string, debug: boolean): string {
  const flags = [...always, ...(debug ? ['--enable-source-maps'] : [])].join(' ');
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
exec "$here/runtime/node" ${flags} "$here/lib/${name}.js" "$@"
`;
}
