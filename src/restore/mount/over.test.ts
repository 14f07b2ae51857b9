/** Tests what a mount would hide, and when it is refused. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { type Places, fstabPlaces, hiddenBy, layoutPlaces, realPlace, refuseHiding } from './over.ts';

const places: Places = {
  mounts: [
    { path: '/', type: 'ext4', source: '/dev/sda1' },
    { path: '/home', type: 'xfs', source: '/dev/sdb1' },
    { path: '/srv/a/b', type: 'nfs4', source: 'host:/b' },
  ],
  known: ['/data'],
  image: '/backup/vault',
  stateDirectory: '/var/lib/dattod',
  runDirectory: '/run/dattod',
};

test('a mount on or above mount points, the vault or the state directory hides them', () => {
  const cases: [string, RegExp | undefined][] = [
    ['/mnt', undefined],
    ['/home/ann', undefined],
    ['/database', undefined],
    ['/backup/vault2', undefined],
    ['/run/dattod/mounts', undefined],
    ['/home', /^it is a mount point \(xfs \/dev\/sdb1\)$/],
    ['/srv', /^\/srv\/a\/b is mounted below it \(nfs4 host:\/b\)$/],
    ['/data', /^\/data is the mount point of a device$/],
    ['/backup/vault', /read from \/backup\/vault/],
    ['/backup/vault/packs', /read from \/backup\/vault/],
    ['/backup', /read from \/backup\/vault/],
    ['/var', /state directory/],
    ['/', /run directory/],
    ['/run', /run directory/],
  ];
  for (const [directory, why] of cases) {
    const hidden = hiddenBy(directory, places);
    if (why === undefined) assert.equal(hidden, undefined, directory);
    else {
      assert.match(hidden?.why ?? '', why, directory);
      assert.throws(() => refuseHiding(directory, hidden, false), { code: 'FILE_EXISTS' });
    }
  }
  refuseHiding('/home', hiddenBy('/home', places), true);
  assert.equal(hiddenBy('/backup', places)?.image, true);
  assert.throws(() => refuseHiding('/run', hiddenBy('/run', places), true), { code: 'FILE_EXISTS' });
  assert.equal(hiddenBy('/backup/vault', { ...places, image: undefined }), undefined);
});

test('mount points are read from an fstab and from the layout of a point, also from malformed ones', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'over-'));
  try {
    const fstab = join(directory, 'fstab');
    writeFileSync(
      fstab,
      '# /no\n\nUUID=1 / ext4\nUUID=2\t/data\\040one  xfs defaults 0 0\n/dev/sdb none swap sw 0 0\nx\n',
    );
    assert.deepEqual(await fstabPlaces(fstab), ['/data one']);
    assert.deepEqual(await fstabPlaces(join(directory, 'none')), []);
    mkdirSync(join(directory, 'real'));
    symlinkSync('real', join(directory, 'link'));
    assert.equal(await realPlace(join(directory, 'link/new/deeper')), join(directory, 'real/new/deeper'));
  } finally {
    rmSync(directory, { recursive: true });
  }
  assert.deepEqual(
    layoutPlaces({
      devices: [{ mounts: [{ path: '/' }, { path: '/data' }, { path: 7 }, null] }, null, { mounts: 'x' }],
    }),
    ['/data'],
  );
  assert.deepEqual(layoutPlaces({}), []);
});
