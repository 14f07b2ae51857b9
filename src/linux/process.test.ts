import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bootId, identifyProcess, isAlive, machineMilliseconds, parseProcessStat } from './process.ts';
import { splitDeviceNumber } from './device-uses.ts';

test('the start time is found after any program name', () => {
  const rest = 'S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21';
  assert.deepEqual(parseProcessStat(`42 (a) b) (c) ${rest}`), { pid: 42, startTime: 4711 });
  assert.equal(parseProcessStat(`42 (dead) ${rest.replace('S', 'Z')}`), undefined);
  assert.equal(parseProcessStat('nonsense'), undefined);
});

test('this process is alive, and a process with another start time is not', async () => {
  const self = await identifyProcess(process.pid);
  assert.ok(self !== undefined);
  assert.equal(await isAlive(self), true);
  assert.equal(await isAlive({ ...self, startTime: self.startTime + 1 }), false);
  assert.equal(await isAlive({ pid: 2 ** 30, startTime: 1 }), false);
});

test('the boot has a UUID, and the clock advances', async () => {
  assert.match(await bootId(), /^[0-9a-f-]{36}$/);
  const before = machineMilliseconds();
  assert.ok(machineMilliseconds() >= before);
});

test('device numbers are split as in the C library', () => {
  assert.deepEqual(splitDeviceNumber(0xfd01), { major: 253, minor: 1 });
  assert.deepEqual(splitDeviceNumber(0x10300), { major: 259, minor: 0 });
  // makedev(0x12345, 0x6789a) of the C library.
  assert.deepEqual(splitDeviceNumber(0x12000_678_345_9a), { major: 0x12345, minor: 0x6789a });
});
