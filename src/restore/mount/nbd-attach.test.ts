/** Tests the records of nbd devices and when a device is disconnected, with a directory in place of /sys. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { AgentError } from '../../base/errors.ts';
import { writeSysfs } from '../../../test/helpers/sysfs-tree.ts';
import { attachNbdDevice, detachNbdDevice, type NbdTools } from './nbd-attach.ts';
import { nbdUser } from './nbd-device.ts';
import type { MountRecord } from './mount-record.ts';

/** Returns fakes: devices nbd0 to nbd2, an nbd-client, and a record. */
function fake(t: TestContext) {
  const sys = mkdtempSync(join(tmpdir(), 'nbd-attach-'));
  t.after(() => rmSync(sys, { recursive: true }));
  writeSysfs(
    sys,
    [0, 1, 2].map((n) => ({ name: `nbd${n}`, dev: `43:${n}`, size: 0 })),
  );
  const place = (device: string): string => join(sys, 'block', device.replace('/dev/', ''));
  let connections = 0;
  const freed = (device: string): void => {
    writeFileSync(join(place(device), 'size'), '0\n');
    const path = join(place(device), 'pid');
    // The file is kept so that its inode is not reused: sysfs does not reuse inode numbers either.
    if (existsSync(path)) renameSync(path, join(sys, `gone-${connections++}`));
  };
  const connected = (device: string, pid: number): void => {
    freed(device);
    writeFileSync(join(place(device), 'size'), '2048\n');
    writeFileSync(join(place(device), 'pid'), `${pid}\n`);
  };
  const inode = (device: string): string => String(statSync(join(place(device), 'pid')).ino);
  const record = { device: '/dev/sda1', file: undefined, nbd: undefined } as unknown as MountRecord;
  const saved: string[] = [];
  const disconnected: string[] = [];
  let pid = 100;
  /** The effect of nbd-client on a device. */
  let client: (device: string, pid: number) => void = connected;
  const tools: NbdTools = {
    sys,
    connect: async (args, starting) => {
      const own = pid++;
      await starting(own);
      client(args[2]!, own);
    },
    disconnect: (device) => {
      disconnected.push(device);
      freed(device);
      return Promise.resolve();
    },
  };
  const save = (): Promise<void> => {
    saved.push(`${record.file ?? '-'} ${record.nbd?.pid ?? '-'} ${record.nbd?.connection ?? '-'}`);
    return Promise.resolve();
  };
  const attach = (signal?: AbortSignal): Promise<void> =>
    attachNbdDevice(record, { socket: '/run/x/nbd', sectorSize: 512, save, signal }, tools);
  return {
    ...{ sys, record, saved, disconnected, tools, save, attach, connected, freed, inode, place },
    clientDoes: (does: typeof client) => {
      client = does;
    },
  };
}

test('the process is recorded before it connects, and its device is disconnected again', async (t) => {
  const { record, saved, disconnected, attach, save, tools, connected, inode } = fake(t);
  connected('/dev/nbd0', 7);
  await attach();
  assert.deepEqual(saved, ['/dev/nbd1 100 -', `/dev/nbd1 100 ${inode('/dev/nbd1')}`]);
  await detachNbdDevice(record, save, tools);
  assert.deepEqual(disconnected, ['/dev/nbd1']);
  assert.equal(saved.at(-1), '- - -');
});

test('if another process connects the device first, the next device is taken', async (t) => {
  const { saved, disconnected, attach, connected, clientDoes, sys, inode } = fake(t);
  clientDoes((device, pid) => {
    if (device === '/dev/nbd0') {
      connected(device, 7);
      throw new AgentError('MOUNT_FAILED', 'nbd-client failed (exit code 1): nbd0 already in use');
    }
    connected(device, pid);
  });
  await attach();
  assert.deepEqual(disconnected, []);
  assert.deepEqual(saved, [
    '/dev/nbd0 100 -',
    '- - -',
    '/dev/nbd1 101 -',
    `/dev/nbd1 101 ${inode('/dev/nbd1')}`,
  ]);
  assert.equal(await nbdUser('/dev/nbd0', { pid: 100, connection: undefined }, sys), 'other');
});

test('a failure for another reason is reported, and the record forgets the device', async (t) => {
  const { record, saved, disconnected, attach, clientDoes } = fake(t);
  clientDoes(() => {
    throw new AgentError('MOUNT_FAILED', 'nbd-client failed (exit code 1): no such export');
  });
  await assert.rejects(attach(), { code: 'MOUNT_FAILED', message: /no such export/ });
  assert.deepEqual([record.file, record.nbd, disconnected], [undefined, undefined, []]);
  assert.deepEqual(saved, ['/dev/nbd0 100 -', '- - -']);
});

test('a device that was connected is disconnected if nbd-client failed or was cancelled', async (t) => {
  const { disconnected, attach, connected, clientDoes, sys } = fake(t);
  const cancelling = new AbortController();
  clientDoes((device, pid) => {
    connected(device, pid);
    cancelling.abort(new AgentError('CANCELLED', 'enough'));
    throw new AgentError('MOUNT_FAILED', 'nbd-client failed (signal SIGTERM): ');
  });
  await assert.rejects(attach(cancelling.signal), { code: 'CANCELLED' });
  assert.deepEqual(disconnected, ['/dev/nbd0']);
  assert.equal(await nbdUser('/dev/nbd0', { pid: 100, connection: undefined }, sys), 'none');
});

test('the record of a process that died shows whether the device is ours', async (t) => {
  const { record, disconnected, save, tools, connected, freed, inode, place } = fake(t);
  const detached = async (nbd: MountRecord['nbd']): Promise<boolean> => {
    record.file = '/dev/nbd2';
    record.nbd = nbd;
    await detachNbdDevice(record, save, tools);
    assert.equal(record.file, undefined);
    return disconnected.splice(0).length > 0;
  };
  connected('/dev/nbd2', 55);
  const connection = inode('/dev/nbd2');
  // The kernel may show any pid after the process has ended.
  writeFileSync(join(place('/dev/nbd2'), 'pid'), '7777\n');
  assert.equal(await detached({ pid: 55, connection }), true);
  freed('/dev/nbd2');
  assert.equal(await detached({ pid: 55, connection }), false);
  // The device now belongs to another process, which has got the same pid.
  connected('/dev/nbd2', 55);
  assert.equal(await detached({ pid: 55, connection }), false);
  // The process that made the record died before the device was connected.
  assert.equal(await detached({ pid: 55, connection: undefined }), true);
  connected('/dev/nbd2', 77);
  assert.equal(await detached({ pid: 55, connection: undefined }), false);
});

test('without a free device, attaching fails with NOT_SUPPORTED', async (t) => {
  const { attach, connected, place } = fake(t);
  for (const number of [0, 1, 2]) connected(`/dev/nbd${number}`, 7);
  await assert.rejects(attach(), { code: 'NOT_SUPPORTED', message: /no free nbd device/ });
  assert.equal(readFileSync(join(place('/dev/nbd0'), 'pid'), 'utf8'), '7\n');
});
