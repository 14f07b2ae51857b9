import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../base/bytes.ts';
import { openFileTarget } from './file-target.ts';
import { targetContract } from '../../test/contracts/target.contract.ts';

const directory = mkdtempSync(join(tmpdir(), 'file-target-'));
after(() => rmSync(directory, { recursive: true }));
let number = 0;
const fresh = (): string => join(directory, `image${number++}`);

targetContract('image file', async () => {
  const target = await openFileTarget(fresh(), { create: { size: 5 * MiB + 1000 } });
  return { target, close: () => target.close() };
});

test('a new image is sparse, and zeros that are written stay holes', async () => {
  const path = fresh();
  const target = await openFileTarget(path, { create: { size: 64 * MiB } });
  await target.write(MiB, Buffer.alloc(MiB, 1));
  await target.writeZeroes(2 * MiB, 60 * MiB, { hole: true });
  await target.flush();
  const { size, blocks } = statSync(path);
  assert.equal(size, 64 * MiB);
  assert.ok(blocks * 512 >= MiB && blocks * 512 <= 2 * MiB, `${blocks * 512} bytes on disk`);
  await target.close();
});

test('an existing image keeps its contents and size, and an empty image gets the requested size', async () => {
  const path = fresh();
  writeFileSync(path, 'contents');
  const kept = await openFileTarget(path, { create: { size: MiB } });
  assert.equal(kept.size, 8);
  await kept.close();
  assert.equal(readFileSync(path, 'utf8'), 'contents');
  const empty = fresh();
  writeFileSync(empty, '');
  const made = await openFileTarget(empty, { create: { size: MiB } });
  assert.equal(made.size, MiB);
  await made.close();
});

test('only one agent can write an image at a time; the same agent can open it again', async () => {
  const path = fresh();
  const first = await openFileTarget(path, { create: { size: MiB } });
  await assert.rejects(openFileTarget(path), { code: 'DEVICE_BUSY' });
  const second = await openFileTarget(path, { exclusive: false });
  await second.write(0, Buffer.from('second'));
  assert.equal(Buffer.from(await first.read(0, 6)).toString(), 'second');
  await second.close();
  await first.close();
  await (await openFileTarget(path)).close();
});

test('paths that cannot be an image are refused', async () => {
  await assert.rejects(openFileTarget(fresh()), { code: 'FILE_ERROR', message: /no such file/ });
  await assert.rejects(openFileTarget(directory), { code: 'FILE_ERROR', message: /neither/ });
  await assert.rejects(openFileTarget('/dev/null'), { code: 'FILE_ERROR' });
  await assert.rejects(openFileTarget(join(fresh(), 'below'), { create: { size: 1 } }), {
    code: 'FILE_ERROR',
  });
  const loop = fresh();
  symlinkSync(loop, loop);
  await assert.rejects(openFileTarget(loop), (thrown: Error) => thrown.message.includes('ELOOP'));
});
