/**
 * A whole Debian 12 with systemd, as disks for the emulated machine. mmdebstrap makes it from Debian's
 * packages, and the machine installs itself (guest/install.sh), so nothing is mounted or attached on the
 * host. It is kept under the cache directory of the tests in a virtual machine, until its inputs change:
 *
 *     CACHE/machine/HASH/     vmlinuz, initrd, sys.img (partitions, LVM, dm-crypt, md, root), store.img (for images)
 */
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { GiB, MiB } from '../../src/base/bytes.ts';
import { exec } from '../helpers/exec.ts';
import { cacheDirectory } from '../vm/kernels.ts';
import { bootMachine } from './boot.ts';

const guest = join(import.meta.dirname, 'guest');
const suite = 'bookworm';
const packages = [
  ...['linux-image-amd64', 'systemd-sysv', 'systemd', 'dbus', 'udev', 'kmod', 'initramfs-tools', 'zstd'],
  ...['lvm2', 'cryptsetup-bin', 'cryptsetup', 'mdadm', 'xfsprogs', 'e2fsprogs', 'fdisk', 'gdisk', 'procps'],
];
/** Modules that the machine never needs. Without them its root is small. */
const needless = ['drivers/net/ethernet', 'drivers/net/wireless', 'drivers/gpu', 'drivers/media', 'sound'];
const masked = [
  ...['apt-daily.timer', 'apt-daily-upgrade.timer', 'dpkg-db-backup.timer', 'e2scrub_all.timer'],
  ...['e2scrub_reap.service', 'fstrim.timer', 'logrotate.timer', 'networking.service'],
];

export interface Base {
  readonly kernel: string;
  readonly initrd: string;
  readonly system: string;
  readonly store: string;
}

/** Makes the machine if it does not exist yet, which takes minutes. `say` receives the progress. */
export async function prepareDebian(say: (line: string) => void): Promise<Base> {
  const inputs = await Promise.all(
    ['install.sh', 'fstab', 'step.service'].map((name) => readFile(join(guest, name))),
  );
  const hash = createHash('sha256');
  for (const part of [suite, packages.join(), needless.join(), masked.join(), ...inputs]) hash.update(part);
  const parent = join(cacheDirectory(), 'machine');
  const place = join(parent, hash.digest('hex').slice(0, 16));
  if (!existsSync(place)) {
    await mkdir(parent, { recursive: true });
    const work = await mkdtemp(join(parent, 'making-'));
    try {
      const made = await make(work, say);
      await rename(made, place);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  }
  const file = (name: string): string => join(place, name);
  return {
    ...{ kernel: file('vmlinuz'), initrd: file('initrd') },
    ...{ system: file('sys.img'), store: file('store.img') },
  };
}

async function make(work: string, say: (line: string) => void): Promise<string> {
  const root = join(work, 'root');
  const made = join(work, 'made');
  await mkdir(made);
  say('a root of Debian packages (mmdebstrap)');
  const excluded = ['doc', 'man', 'locale'].map((name) => `--dpkgopt=path-exclude=/usr/share/${name}/*`);
  await exec(
    'mmdebstrap',
    ['--mode=root', '--variant=important', `--include=${packages.join(',')}`, ...excluded, suite, root],
    { timeoutMs: 20 * 60_000 },
  );
  say('its settings and its initramfs');
  await settle(root);
  for (const name of await readdir(join(root, 'boot'))) {
    if (name.startsWith('vmlinuz-')) await copyFile(join(root, 'boot', name), join(made, 'vmlinuz'));
    if (name.startsWith('initrd.img-')) await copyFile(join(root, 'boot', name), join(made, 'initrd'));
  }
  const plain = join(work, 'root.img');
  await makeImage(plain, 1500 * MiB);
  await exec('mke2fs', ['-q', '-F', '-t', 'ext4', '-d', root, plain], { timeoutMs: 5 * 60_000 });
  await makeImage(join(made, 'sys.img'), 3400 * MiB);
  await makeImage(join(made, 'store.img'), 3 * GiB);
  say('the installation, in the machine itself');
  const { console } = await bootMachine({
    ...{ kernel: join(made, 'vmlinuz'), initrd: join(made, 'initrd') },
    append: 'root=/dev/vda rw init=/root/install.sh',
    drives: [
      { file: plain, discardWrites: true },
      { file: join(made, 'sys.img') },
      { file: join(made, 'store.img') },
      { file: plain, readOnly: true },
    ],
    deadlineMs: 20 * 60_000,
  });
  if (!console.includes('INSTALL DONE')) throw new Error(`the installation failed:\n${console.slice(-2000)}`);
  return made;
}

async function settle(root: string): Promise<void> {
  const at = (path: string): string => join(root, path);
  const [release] = await readdir(at('lib/modules'));
  for (const path of needless)
    await rm(at(`lib/modules/${release!}/kernel/${path}`), { recursive: true, force: true });
  await rm(at('var/cache/apt/archives'), { recursive: true, force: true });
  await writeFile(at('etc/hostname'), 'machine\n');
  await copyFile(join(guest, 'fstab'), at('etc/fstab'));
  await writeFile(at('etc/crypttab'), 'crypt1 /dev/vda4 /etc/luks.key luks\n');
  await writeFile(at('etc/luks.key'), 'k'.repeat(32), { mode: 0o600 });
  for (const name of ['part', 'xfs', 'ext', 'other', 'crypt', 'md', 'store'])
    await mkdir(at(`srv/${name}`), { recursive: true });
  await mkdir(at('payload'), { recursive: true });
  await copyFile(join(guest, 'install.sh'), at('root/install.sh'));
  await copyFile(join(guest, 'step.service'), at('etc/systemd/system/step.service'));
  await exec('chroot', [root, 'systemctl', 'enable', 'step.service']);
  await exec('chroot', [root, 'systemctl', 'mask', ...masked]);
  const modules = await open(at('etc/initramfs-tools/modules'), 'a');
  await modules.write('virtio_blk\nvirtio_pci\nxfs\nraid1\ndm_crypt\n');
  await modules.close();
  await exec('chroot', [root, 'depmod', release!]);
  await exec('chroot', [root, 'update-initramfs', '-u', '-k', 'all'], { timeoutMs: 10 * 60_000 });
}

/** Makes a sparse file. */
export async function makeImage(path: string, size: number): Promise<void> {
  const file = await open(path, 'w');
  await file.truncate(size);
  await file.close();
}
