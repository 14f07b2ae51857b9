import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { parseMountinfo, unescapeOctal, visibleMounts } from './mountinfo.ts';

const example = `22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 8:2 / / rw,relatime shared:1 master:2 - ext4 /dev/sda2 rw,errors=remount-ro
30 27 8:17 /data/photos /srv/photo\\040album\\011\\134\\012x rw,relatime - xfs /dev/sdb1 rw,attr2
31 27 8:17 / /srv/all ro,relatime - xfs /dev/sdb1 rw
32 27 8:18 / /srv/ro ro,relatime propagate_from:2 - ext4 /dev/sdb2 ro
33 27 0:40 /@home /home rw shared:7 - btrfs /dev/sdc rw,subvolid=256,subvol=/@home
`;

test('the documented fields are found, with any optional fields between them', () => {
  const entries = parseMountinfo(Buffer.from(example));
  assert.equal(entries.length, 6);
  assert.deepEqual(entries[1], {
    id: 27,
    parentId: 1,
    major: 8,
    minor: 2,
    root: '/',
    path: '/',
    type: 'ext4',
    source: '/dev/sda2',
    readOnly: false,
    filesystemReadOnly: false,
    superOptions: 'rw,errors=remount-ro',
  });
  assert.equal(entries[2]?.root, '/data/photos');
  assert.equal(entries[2].path, '/srv/photo album\t\\\nx');
  assert.equal(entries[5]?.source, '/dev/sdc');
});

test('a read-only mount of a writable filesystem is not reported as a read-only filesystem', () => {
  const [, , , bind, whole] = parseMountinfo(Buffer.from(example));
  assert.deepEqual([bind?.readOnly, bind?.filesystemReadOnly], [true, false]);
  assert.deepEqual([whole?.readOnly, whole?.filesystemReadOnly], [true, true]);
});

test('a name that is not UTF-8 keeps its bytes', () => {
  const line = Buffer.concat([
    Buffer.from('33 27 8:1 / /mnt/latin1-'),
    Buffer.of(0xe4, 0xff),
    Buffer.from('\u20ac rw - ext4 /dev/sda1 rw\n'),
  ]);
  assert.equal(parseMountinfo(line)[0]?.path, '/mnt/latin1-\udce4\udcff\u20ac');
});

test('a filesystem that accepts no writes after an error or a shutdown is read-only', () => {
  for (const option of ['ro', 'emergency_ro', 'shutdown'])
    assert.equal(
      parseMountinfo(Buffer.from(`33 27 8:1 / /mnt rw - ext4 /dev/sda1 rw,${option}\n`))[0]
        ?.filesystemReadOnly,
      true,
      option,
    );
});

test('lines that are not in the format of mountinfo are skipped', () => {
  fc.assert(
    fc.property(fc.string(), (noise) => {
      assert.deepEqual(parseMountinfo(Buffer.from(noise.replaceAll(' - ', ''))), []);
    }),
  );
});

test('only the escapes of the kernel are decoded', () => {
  const escape = (text: string): string =>
    text.replace(/[ \t\n\\#]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`);
  fc.assert(
    fc.property(fc.string({ unit: 'binary', maxLength: 40 }), (text) =>
      assert.equal(unescapeOctal(escape(text)), text),
    ),
  );
});

test('a mount that another mount covers is not visible', () => {
  const entries = parseMountinfo(
    Buffer.from(`1 1 8:1 / / rw - ext4 /dev/sda1 rw
2 1 8:2 / /mnt rw - ext4 /dev/sda2 rw
3 2 8:3 / /mnt rw - ext4 /dev/sda3 rw
`),
  );
  assert.deepEqual(
    visibleMounts(entries).map(({ id }) => id),
    [1, 3],
  );
});
