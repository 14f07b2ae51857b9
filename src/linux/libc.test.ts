import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { test } from 'node:test';
import { discard } from './ioctl.ts';
import { errnoName } from './libc.ts';
import { syncFilesystem } from './syncfs.ts';

test('errno numbers have their names', () => {
  const names = {
    5: 'EIO',
    6: 'ENXIO',
    16: 'EBUSY',
    19: 'ENODEV',
    22: 'EINVAL',
    28: 'ENOSPC',
    95: 'EOPNOTSUPP',
  };
  for (const [errno, name] of Object.entries(names)) assert.equal(errnoName(Number(errno)), name);
  assert.equal(errnoName(4095), 'errno 4095');
});

test('calls on other threads return their own errno, also if many run at once', async () => {
  const notADisk = openSync('/dev/null', 'r');
  try {
    await Promise.all(
      Array.from({ length: 200 }, async (_, i) => {
        if (i % 2 === 0) await assert.rejects(syncFilesystem(-1), { code: 'EBADF' });
        else await assert.rejects(discard(notADisk, 0, 512), { code: 'ENOTTY' });
      }),
    );
  } finally {
    closeSync(notADisk);
  }
});
