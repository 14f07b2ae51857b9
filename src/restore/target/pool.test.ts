import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { KiB } from '../../base/bytes.ts';
import { silentLog } from '../../base/log.ts';
import type { ExportBackend, ExportProvider } from '../../nbd/server/backend.ts';
import { startExportServer } from '../export/server.ts';
import { parseDestination } from './acquire-destination.ts';
import { restoreToTarget } from './to-target.ts';

const directory = mkdtempSync(join(tmpdir(), 'restore-pool-'));
after(() => rmSync(directory, { recursive: true }));

const size = 512 * KiB;

/** A disk in memory that loses writes to one byte, or fails there. */
function memory(disk: Buffer, at: number, how: 'forgets' | 'fails' | 'works'): ExportProvider {
  const backend: ExportBackend = {
    size: disk.length,
    readOnly: false,
    multiConnection: true,
    fastZero: true,
    read: (target, offset) => void disk.copy(target, 0, offset, offset + target.length),
    write: (data, offset) => {
      const hit = offset <= at && at < offset + data.length;
      if (hit && how === 'fails') throw Object.assign(new Error('bad sector'), { code: 'EIO' });
      const kept = disk[at] ?? 0;
      disk.set(data, offset);
      if (hit && how === 'forgets') disk[at] = kept;
    },
    zero: (offset, length) => void disk.fill(0, offset, offset + length),
    trim: () => undefined,
    flush: () => undefined,
    status: (_offset, length) => [{ length, hole: false, zero: false }],
    close: () => undefined,
  };
  const description = {
    name: '',
    size: disk.length,
    readOnly: false,
    multiConnection: true,
    fastZero: true,
    description: '',
  };
  return { list: () => [], describe: () => description, open: () => backend };
}

test('a disk that loses writes is detected, a failing one is reported, a good one gets the image', async () => {
  const bytes = Buffer.alloc(size);
  for (let i = 0; i < size; i += 4) if (i < 200 * KiB || i > 300 * KiB) bytes.writeUInt32LE(i | 1, i);
  const image = join(directory, 'image');
  writeFileSync(image, bytes);
  for (const [how, code] of [
    ['forgets', 'TARGET_MISMATCH'],
    ['fails', /TARGET_WRITE_ERROR|NBD_SERVER_ERROR/],
    ['works', undefined],
  ] as const) {
    const disk = Buffer.alloc(size + 4096);
    const path = join(directory, `${how}.sock`);
    const exports = memory(disk, 100_000, how);
    const server = await startExportServer({ exports, listen: { kind: 'unix', path }, log: silentLog() });
    try {
      const restoring = restoreToTarget({
        image: { kind: 'file', path: image },
        imageId: 'image',
        sectorSize: 512,
        to: parseDestination(server.uri),
        threads: 2,
      });
      if (code === undefined) {
        const result = await restoring;
        assert.ok(result.written > 0 && result.verified >= result.written);
        assert.ok(disk.subarray(0, size).equals(bytes));
      } else await assert.rejects(restoring, { code });
    } finally {
      await server.stop();
    }
  }
});
