/**
 * A directory with every kind of metadata that a filesystem keeps, and a listing of it by foreign tools:
 * find, getfattr, getfacl, getcap's attribute, sha256sum. Two listings are equal if everything was preserved.
 */
import { randomBytes } from 'node:crypto';
import { link, mkdir, open, symlink, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MiB } from '../../src/base/bytes.ts';
import { exec } from './exec.ts';

export async function makeMetadataTree(directory: string): Promise<void> {
  const at = (...names: string[]): string => join(directory, ...names);
  await mkdir(at('etc', 'deep', 'er'), { recursive: true });
  await writeFile(at('etc', 'shadow'), 'secret\n', { mode: 0o600 });
  await writeFile(at('etc', 'deep', 'er', 'file with spaces\nand a newline'), randomBytes(5000));
  await writeFile(at('big'), randomBytes(3 * MiB));
  await writeFile(at('zeros'), Buffer.alloc(MiB));
  await writeFile(at('empty'), '');
  const sparse = await open(at('sparse'), 'w');
  await sparse.truncate(64 * MiB);
  await sparse.write(randomBytes(8192), 0, 8192, 40 * MiB);
  await sparse.close();
  await link(at('big'), at('etc', 'hard link of big'));
  await symlink('../big', at('etc', 'relative'));
  await symlink('/etc/passwd', at('etc', 'absolute'));
  await symlink('nowhere', at('dangling'));
  await symlink('/etc/deep', at('way in'));
  const script = `
    set -e
    mkfifo -m 640 pipe
    mknod null c 1 3; mknod disk b 7 200
    chown 1234:5678 big; chown -h 77:88 dangling; chmod 4755 etc/shadow; chmod 1777 etc/deep; chmod 2751 etc
    setfattr -n user.note -v "$(printf 'a\\nb')" big
    setfattr -n trusted.hidden -v t etc
    setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= zeros
    setfacl -m u:1234:rw-,g:99:r-x big
    setfacl -d -m u:4321:rwx etc/deep
    setfacl -m u:4321:--x etc/deep
    touch -h -d '2001-02-03 04:05:06.123456789' dangling
    touch -d '1999-12-31 23:59:59.987654321' etc/shadow
  `;
  await exec('sh', ['-c', script], { cwd: directory });
  await utimes(at('etc', 'deep'), 1e9, 1.1e9);
  await utimes(at('etc'), 1e9, 1.2e9);
}

/** Returns one text for everything below `directory`, except `lost+found`. */
export async function listTree(directory: string): Promise<string> {
  const script = `
    set -e
    export LC_ALL=C
    find . -name lost+found -prune -o -printf '%P|%y|%m|%U|%G|%s|%T@|%n|%l|\\n' | sed 's/|d|\\([^|]*|[^|]*|[^|]*\\)|[0-9]*|/|d|\\1||/' | sort
    find . -type b -o -type c | sort | xargs -r stat -c '%n %t:%T'
    getfattr -R -h -d -m - -e hex . | sort
    getfacl -R -P -n -p . | sort
    find . -name lost+found -prune -o -type f -print0 | sort -z | xargs -0 sha256sum
    find . -type f -links +1 -printf '%i ' | tr ' ' '\\n' | sort | uniq -c | awk '{print $1}'
  `;
  return (await exec('sh', ['-c', script], { cwd: directory })).stdout;
}
