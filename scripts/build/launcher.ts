/**
 * The launchers: small sh scripts that find themselves also through symbolic links (so that
 * `ln -s /opt/agent/build/dattocli /usr/bin/` works) and become the program on the runtime beside them.
 */

/** node:sqlite still announces itself as experimental on every start; nobody at a terminal needs that. */
const always = ['--disable-warning=ExperimentalWarning'];

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
exec "$here/runtime/node" ${flags} "$here/lib/${name}.js" "$@"
`;
}
