import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { checkDescribed, identityDifference, deviceIdentity, readLiveDevice } from './device-identity.ts';

function tree(): { sys: string; remove: () => void; write: (path: string, text: string) => void } {
  const sys = mkdtempSync(join(tmpdir(), 'marks-'));
  const write = (path: string, text: string): void => {
    mkdirSync(join(sys, path, '..'), { recursive: true });
    writeFileSync(join(sys, path), `${text}\n`);
  };
  write('devices/sda/dev', '8:0');
  write('devices/sda/size', '1000');
  write('devices/sda/diskseq', '7');
  write('devices/sda/mq/0/tags', '');
  write('devices/sda/sda1/dev', '8:1');
  write('devices/sda/sda1/partition', '1');
  write('devices/sda/sda1/start', '40');
  write('devices/sda/sda1/size', '900');
  write('devices/dm-0/dev', '254:0');
  write('devices/dm-0/size', '16');
  mkdirSync(join(sys, 'dev/block'), { recursive: true });
  for (const [number, place] of [
    ['8:0', 'sda'],
    ['8:1', 'sda/sda1'],
    ['254:0', 'dm-0'],
  ] as const)
    symlinkSync(join(sys, 'devices', place), join(sys, 'dev/block', number));
  return { sys, write, remove: () => rmSync(sys, { recursive: true }) };
}

const sda1 = {
  path: '/dev/sda1',
  major: 8,
  minor: 1,
  size: 900 * 512,
  partition: { major: 8, minor: 0, start: 40 * 512 },
  diskSequence: 7,
  uuid: 'u',
};

test('a partition has its disk, its start and its disk sequence; a disk without mq takes bios', (t) => {
  const { sys, remove } = tree();
  t.after(remove);
  const partition = readLiveDevice(8, 1, sys);
  assert.deepEqual(
    { ...partition, nodes: '' },
    {
      size: 900 * 512,
      disk: { major: 8, minor: 0 },
      start: 40 * 512,
      partition: true,
      diskSequence: 7,
      nodes: '',
      byBio: false,
      handedDownBy: undefined,
    },
  );
  assert.equal(readLiveDevice(254, 0, sys).byBio, true);
  assert.equal(readLiveDevice(254, 0, sys).diskSequence, undefined);
  assert.throws(() => readLiveDevice(8, 2, sys), { code: 'DEVICE_GONE' });
});

test('md RAID 0 above a device that takes bios is reported, and above any other device it is not', (t) => {
  const { sys, write, remove } = tree();
  t.after(remove);
  write('devices/dm-0/holders/md1/md/level', 'raid1');
  write('devices/dm-0/holders/dm-1/dm/name', 'crypt');
  assert.equal(readLiveDevice(254, 0, sys).handedDownBy, undefined);
  for (const place of ['dm-0', 'sda', 'sda/sda1']) write(`devices/${place}/holders/md0/md/level`, 'raid0');
  assert.equal(readLiveDevice(254, 0, sys).handedDownBy, 'md0');
  assert.equal(readLiveDevice(8, 1, sys).handedDownBy, undefined);
});

test('every identifier that differs is named with both values', (t) => {
  const { sys, write, remove } = tree();
  t.after(remove);
  const now = () => deviceIdentity(sda1, readLiveDevice(8, 1, sys), 'boot-1');
  const before = now();
  assert.equal(identityDifference(before, now()), undefined);
  assert.match(
    identityDifference(before, { ...now(), bootId: 'boot-2' }) ?? '',
    /boot was boot-1 and is boot-2/,
  );
  assert.match(identityDifference(before, { ...now(), uuid: 'v' }) ?? '', /UUID was u and is v/);
  assert.match(identityDifference(before, { ...now(), nodes: 'sda 1' }) ?? '', /sysfs/);
  write('devices/sda/sda1/size', '901');
  assert.match(identityDifference(before, now()) ?? '', /size in bytes was 460800 and is 461312/);
  write('devices/sda/sda1/size', '900');
  write('devices/sda/sda1/start', '41');
  assert.match(identityDifference(before, now()) ?? '', /8:0\+20480 and is 8:0\+20992/);
  write('devices/sda/sda1/start', '40');
  write('devices/sda/diskseq', '8');
  assert.match(identityDifference(before, now()) ?? '', /disk sequence was 7 and is 8/);
});

test('a caller that describes another device gets an error', (t) => {
  const { sys, remove } = tree();
  t.after(remove);
  const live = readLiveDevice(8, 1, sys);
  checkDescribed(sda1, live);
  assert.throws(() => checkDescribed({ ...sda1, size: 1 }, live), {
    code: 'DEVICE_GONE',
    message: /460800, not 1$/,
  });
  assert.throws(() => checkDescribed({ ...sda1, diskSequence: 6 }, live), { code: 'DEVICE_GONE' });
  assert.throws(() => checkDescribed({ ...sda1, partition: undefined }, live), { code: 'DEVICE_GONE' });
});
