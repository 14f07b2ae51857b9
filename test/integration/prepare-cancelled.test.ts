/**
 * Tests a job that is still being prepared, because its vault or its server accepts connections and never
 * answers. It is listed by `jobs` and ends at once when it is cancelled. Needs root and e2fsprogs.
 */
import assert from 'node:assert/strict';
import { rmSync, writeFileSync } from 'node:fs';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { scratchFor } from '../helpers/backup.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { dattocli, startDaemon, waitFor } from '../helpers/daemon.ts';
import { makeLoop } from '../helpers/loop.ts';

const whole = { after };
const sockets = new Set<Socket>();
const silent = createServer((socket) => {
  sockets.add(socket);
  socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
  socket.resume();
});
await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
atEnd(whole, () => {
  for (const socket of sockets) socket.destroy();
  silent.close();
  return Promise.resolve();
});
const { port } = silent.address() as AddressInfo;

const scratch = scratchFor(whole);
const credentials = join(scratch, 'credentials.json');
writeFileSync(credentials, JSON.stringify({ access_key_id: 'a', secret_access_key: 'b' }), { mode: 0o600 });
const config = join(scratch, 'config.json');
writeFileSync(
  config,
  JSON.stringify({
    job_options: { tracker: 'none' },
    vaults: {
      silent: {
        location: `vault+s3+http://127.0.0.1:${port}/bucket/prefix`,
        credentials_file: credentials,
      },
    },
  }),
);
const daemon = await startDaemon({ arguments: ['--config', config] });
atEnd(whole, async () => {
  await daemon.stop();
});

for (const target of ['vault:silent', `nbd://127.0.0.1:${port}/image`])
  test(`${target.split(':')[0]!}: the peer never answers`, async (t) => {
    const disk = await makeLoop(t, { size: 32 * MiB, filesystem: 'ext4' });
    const starting = dattocli(
      ['startbackup', '--full', '--wait', '--device', disk.device, '--target', target],
      daemon,
    );
    let uuid = '';
    await waitFor('the job is being prepared', 30_000, async () => {
      const { stdout } = await dattocli(['jobs', '--json'], daemon);
      const found = (JSON.parse(stdout) as JobStatus[]).find(({ state }) => state === 'NOT_STARTED');
      uuid = found?.uuid ?? '';
      // The job is waiting for the answer.
      return found !== undefined && sockets.size > 0;
    });
    const began = performance.now();
    const stopped = await dattocli(['stopbackup', uuid, '--json'], daemon);
    assert.equal((JSON.parse(stopped.stdout) as JobStatus).state, 'CANCELLED');
    const started = await starting;
    assert.equal(started.code, 4, started.stderr);
    assert.match(started.stderr, /Cancelled: stopped by an operator/);
    const tookMs = performance.now() - began;
    assert.ok(tookMs < 10_000, `${tookMs} ms`);
    assert.equal((await dattocli(['backupstatus', uuid], daemon)).stdout.includes('CANCELLED'), true);
    await waitFor('no connection is left', 30_000, () => sockets.size === 0);

    // The device is free again.
    const image = join(scratch, 'image');
    await waitFor('the device is free', 30_000, async () => {
      const again = await dattocli(
        ['startbackup', '--full', '--wait', '--device', disk.device, '--target', image],
        daemon,
      );
      if (again.code !== 0) assert.match(again.stderr, /already being backed up/);
      return again.code === 0;
    });
    rmSync(image);
  });
