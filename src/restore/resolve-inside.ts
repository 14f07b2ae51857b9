/**
 * Resolves paths within a mounted image, so that a symbolic link in it does not lead into the running system. Works like
 * openat2(2) with RESOLVE_IN_ROOT, which Node does not offer.
 */
import { lstat, readlink } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { AgentError, errnoCode } from '../base/errors.ts';

/** The most links that the kernel follows (MAXSYMLINKS). */
const mostLinks = 40;

/**
 * Returns the path below `root` that `path` means, without symbolic links in its directories. Resolves links as if `root`
 * were the root directory. The last component may be a link itself. Throws FILE_ERROR.
 */
export async function resolveInside(root: string, path: string): Promise<string> {
  const missing = (code: string): AgentError =>
    new AgentError('FILE_ERROR', `The recovery point has no ${path} (${code})`, {
      hint: 'give paths from the root of the filesystem, without its mount point; use dattocli mount to see the files',
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
