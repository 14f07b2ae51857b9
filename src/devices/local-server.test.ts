import assert from 'node:assert/strict';
import { mkdtempSync, openSync, closeSync, ftruncateSync, rmSync, symlinkSync } from 'node:fs';
import { once } from 'node:events';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join, relative as pathFrom } from 'node:path';
import test from 'node:test';
import { filesServedAt, tcpListeners, unixListeners } from './local-server.ts';

test('listeners are read from /proc/net', () => {
  const tcp = [
    '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode',
    '   0: 0100007F:2A39 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 x 100 0 0 10 0',
    '   1: 0100007F:2A39 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 x 20 4 30 10 -1',
  ].join('\n');
  assert.deepEqual(tcpListeners(tcp, 10809), new Set(['4711']));
  assert.deepEqual(tcpListeners(tcp, 10810), new Set());
  const unix = [
    'Num       RefCount Protocol Flags    Type St Inode Path',
    '0000000000000000: 00000002 00000000 00010000 0001 01 22715 /run/a socket',
    '0000000000000000: 00000003 00000000 00000000 0001 03 22716',
    '0000000000000000: 00000003 00000000 00000000 0001 03 22717 /run/connected',
  ].join('\n');
  assert.deepEqual(unixListeners(unix), [{ inode: '22715', path: '/run/a socket' }]);
});

test('a server of this machine is found with the images that it can write, and no others', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'local-server-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const open = (name: string, flags: string, size: number): void => {
    const fd = openSync(join(directory, name), 'a');
    ftruncateSync(fd, size);
    closeSync(fd);
    const kept = openSync(join(directory, name), flags);
    t.after(() => closeSync(kept));
  };
  open('image', 'r+', 1 << 20);
  open('log', 'a', 100);
  open('read-only', 'r', 1 << 20);
  symlinkSync(directory, `${directory}-link`);
  t.after(() => rmSync(`${directory}-link`));
  const socket = join(directory, 'socket');
  const relative = pathFrom(process.cwd(), socket);
  for (const [where, named] of [
    [0, ''],
    [socket, socket],
    [socket, join(`${directory}-link`, 'socket')],
    [join(`${directory}-link`, 'socket'), socket],
    [relative, socket],
  ] as const) {
    const server = createServer().listen(where);
    await once(server, 'listening');
    const address =
      typeof where === 'string'
        ? ({ kind: 'unix', path: named } as const)
        : ({ kind: 'tcp', port: (server.address() as AddressInfo).port } as const);
    const files = (await filesServedAt(address, 1 << 20)).filter(({ name }) => name.startsWith(directory));
    server.close();
    assert.deepEqual(
      files.map(({ name, pid }) => ({ name, pid })),
      [{ name: join(directory, 'image'), pid: process.pid }],
    );
  }
});
