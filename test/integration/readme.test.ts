/**
 * Runs the README's flows as a user would paste them. The marked blocks are extracted from README.md, their
 * placeholders filled in, and run in order. To use the daemon's default paths, everything runs in its own
 * mount and process namespaces, with a private /run, /var/log and /var/lib.
 */
import assert from 'node:assert/strict';
import { chmodSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { exec } from '../helpers/exec.ts';
import { giveUpForeignMounts } from '../helpers/foreign-mounts.ts';
import { makeLoop } from '../helpers/loop.ts';

const root = join(import.meta.dirname, '../..');
const readme = readFileSync(join(root, 'README.md'), 'utf8');

/** Returns the commands of the block that `<!-- test: NAME -->` marks, without comments. */
function block(name: string): string {
  const match = new RegExp(`<!-- test: ${name} -->\\s+\`\`\`sh\\n([^]*?)\`\`\``).exec(readme);
  assert.ok(match?.[1] !== undefined, `README.md has no block marked "test: ${name}"`);
  return match[1].replace(/\s+#.*$/gm, '').trim();
}

test('the README flow: dattod, truncate, nbd-server, startbackup, and the image restored', async (t) => {
  const disk = await makeLoop(t, { size: 96 * 1024 * 1024, filesystem: 'ext4', mount: true });
  const files = join(disk.mountPoint!, 'files');
  mkdirSync(files);
  for (let number = 0; number < 200; number++)
    writeFileSync(join(files, `file ${number}`), Buffer.alloc(number * 300, `${number} `));
  await exec('sync', ['--file-system', files]);

  // The user nbd must be able to enter the directory.
  chmodSync(disk.directory, 0o755);
  const work = join(disk.directory, 'work');
  mkdirSync(work, { mode: 0o755 });
  symlinkSync(join(root, 'build'), join(work, 'build'));

  const size = block('size').replaceAll('/dev/YOUR_BD', disk.device);
  const { stdout } = await exec('sh', ['-euc', size]);
  const [bytes = '', identity = ''] = stdout.split('\n');
  const uuid = / UUID="([^"]+)"/.exec(identity)?.[1] ?? '';
  assert.equal(bytes, String(96 * 1024 * 1024));
  assert.match(uuid, /^[0-9a-f-]{36}$/);

  const other = await makeLoop(t, { size: 96 * 1024 * 1024 });
  const vault = [block('vault'), block('recover'), block('tend')]
    .join('\n')
    .replaceAll('UUID', uuid)
    .replaceAll('/dev/OTHER_BD', other.device)
    .replaceAll('/PATH', '/files')
    // Exit code 5: writes are not tracked here, so it is a differential.
    .replaceAll(/^.*--incremental.*$/gm, '$& || [ $? = 5 ]');
  const [truncate = '', server = ''] = block('receive').replaceAll('SIZE', bytes).split(/\n/);
  const script = `
    set -eu
    ${giveUpForeignMounts([disk.mountPoint!])}
    for private in /run /var/log /var/lib; do mount -t tmpfs tmpfs $private; done
    mount -t tmpfs tmpfs /mnt
    # What tracks on when the daemon has ended goes with this namespace.
    if [ -d /sys/fs/bpf ]; then mount -t bpf bpf /sys/fs/bpf; fi
    ip link set lo up
    ${block('start')}
    ${truncate}
    # What the README's note says of Debian.
    if getent passwd nbd >/dev/null; then chown nbd block_dev.datto; fi
    ${server}
    ${block('backup').replaceAll('UUID', uuid).replaceAll('HOST', '127.0.0.1')} | tee job
    ./build/dattocli backupstatus "$(head -n 1 job)" --follow && ended=0 || ended=$?
    echo "ended with $ended"
    ${vault}
    diff --recursive ${disk.mountPoint!}/files found/files
    e2fsck -fn ${other.device}
    echo "the vault gave all back"
    kill "$(cat /run/dattod.pid)"
    waited=0
    while [ -e /run/dattod.sock ]; do
      waited=$((waited + 1)); [ $waited -lt 300 ] || exit 9
      sleep 0.1
    done
    e2fsck -fn block_dev.datto
    loop=$(${block('restore').split('\n')[0]!})
    trap 'umount /mnt; losetup --detach "$loop"' EXIT
    ${block('restore').split('\n')[1]!.replace('/dev/loopN', '"$loop"')}
    diff --recursive ${disk.mountPoint!} /mnt
    echo "the image is the source"
  `;
  const flow = await exec(
    'unshare',
    ['--mount', '--net', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', script],
    { cwd: work },
  );
  const said = `${flow.stdout}\n${flow.stderr}`;
  assert.match(flow.stdout, /^[0-9a-f-]{36}$/m, said);
  // Exit code 5: a plain nbd-server cannot flush, and the job reports that.
  assert.match(flow.stdout, /ended with 5/, said);
  assert.match(said, /flush/, said);
  assert.match(flow.stdout, /the image is the source/, said);
  assert.match(flow.stdout, /([0-9A-Z]{4}-){6}[0-9A-Z]{4}$/m, said);
  assert.match(flow.stdout, /^[0-9a-f]{8} .* (incremental|differential) +frozen +no$/m, said);
  assert.match(flow.stdout, /the vault gave all back/, said);
});
