/**
 * Paths in a mounted image as that image means them: a symbolic link in it must not lead into the running system. As
 * openat2(2) with RESOLVE_IN_ROOT would, which Node does not have.
 */
import { lstat, readlink } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { AgentError, errnoCode } from '../base/errors.ts';

/** As many as the kernel follows (MAXSYMLINKS). */
const mostLinks = 40;

/**
 * The path below `root` that leads to `path` without symbolic links on its way, found as if `root` were the root: a link
 * in the image must not lead into the running system. The last component may be a link itself. Throws FILE_ERROR.
 */
export async function resolveInside(root: string, path: string): Promise<string> {
  const missing = (code: string): AgentError =>
    new AgentError('FILE_ERROR', `The recovery point has no ${path} (${code})`, {
      hint: 'paths begin at the root of the filesystem, not at where it was mounted; mount shows what is there',
    });
  let left = path.split('/');
  let at: string[] = [];
  let links = 0;
  while (left.length > 0) {
    const [name = '', ...rest] = left;
    left = rest;
    if (name === '' || name === '.') continue;
    if (name === '..') {
      at = at.slice(0, -1);
      continue;
    }
    const here = join(root, ...at, name);
    const node = await lstat(here).catch((error: unknown) => {
      throw missing(errnoCode(error) ?? String(error));
    });
    if (node.isSymbolicLink() && rest.some((each) => each !== '' && each !== '.')) {
      if (++links > mostLinks) throw missing('ELOOP');
      const target = await readlink(here);
      if (target.startsWith('/')) at = [];
      left = [...target.split('/'), ...rest];
      continue;
    }
    at.push(name);
  }
  return relative(root, join(root, ...at)) || '.';
}
