import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Device } from '../../devices/device.ts';
import type { Stack } from '../../devices/stacking.ts';
import { hasClone } from './clones.ts';

const device = (kernelName: string, uuid: string | undefined): Device =>
  ({ kernelName, kind: 'disk', filesystem: uuid === undefined ? undefined : { uuid } }) as Device;

async function ask(lowers: Record<string, string[]>, shown: readonly string[] = []): Promise<boolean[]> {
  const devices = [device('sda', 'u'), device('sdb', 'u'), device('sdc', 'v'), device('sdd', undefined)];
  const stack = { lowers: new Map(Object.entries(lowers)) } as unknown as Stack;
  const shownPoints = (): Promise<(each: { kernelName: string }) => boolean> =>
    Promise.resolve(({ kernelName }) => shown.includes(kernelName));
  return Promise.all(devices.map((each) => hasClone(each, { devices, stack }, { shownPoints })));
}

test('two devices with the same filesystem UUID are clones of each other', async () => {
  assert.deepEqual(await ask({}), [true, true, false, false]);
});

test('a device on the other one, or one that shows a recovery point, is not a clone', async () => {
  assert.deepEqual(await ask({ sdb: ['sda'] }), [false, false, false, false]);
  assert.deepEqual((await ask({}, ['sdb']))[0], false);
});
