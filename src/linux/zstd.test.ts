import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import test from 'node:test';
import { zstdCompressSync, zstdDecompressSync } from 'node:zlib';
import { ZstdCompressor, ZstdDecompressor, hasDirectZstd, zstdLongest } from './zstd.ts';

const program = readFileSync(process.execPath).subarray(0, 2 * zstdLongest);
const samples = [1, 2, 100, 4096, 65536, 65537, zstdLongest / 2].flatMap((length) => [
  program.subarray(length, 2 * length),
  Buffer.alloc(length, 'ab'),
  randomBytes(length),
]);

test('the runtime of this package exports its zstd', () => {
  assert.ok(hasDirectZstd);
});

test('node:zlib reads our frames, and we read the frames of node:zlib', () => {
  for (const direct of [true, false])
    for (const level of [1, 3, 19]) {
      const compressor = new ZstdCompressor(level, { direct });
      const decompressor = new ZstdDecompressor({ direct });
      for (const sample of level === 19 ? samples.slice(0, -6) : samples) {
        const frame = compressor.compress(sample);
        if (frame === undefined) continue;
        assert.ok(frame.length < sample.length);
        assert.ok(zstdDecompressSync(frame).equals(sample));
        assert.ok(decompressor.decompress(frame, sample.length)?.equals(sample));
        assert.ok(decompressor.decompress(zstdCompressSync(sample), sample.length)?.equals(sample));
      }
      assert.ok(compressor.compress(Buffer.alloc(65536, 1))!.length < 100);
      assert.equal(compressor.compress(randomBytes(65536)), undefined);
    }
});

test('direct calls and node:zlib compress about equally well', () => {
  const sizes = [true, false].map((direct) => {
    const compressor = new ZstdCompressor(3, { direct });
    let sum = 0;
    for (let at = 0; at < program.length; at += 65536)
      sum += compressor.compress(program.subarray(at, at + 65536))?.length ?? 65536;
    return sum;
  });
  assert.ok(Math.abs(sizes[0]! - sizes[1]!) < sizes[0]! / 100, sizes.join(' '));
});

test('invalid frames and wrong lengths give undefined, and nothing is written past the buffer', () => {
  const frame = zstdCompressSync(Buffer.alloc(1000, 'a'));
  for (const direct of [true, false]) {
    const decompressor = new ZstdDecompressor({ direct });
    assert.equal(decompressor.decompress(frame, 999), undefined);
    assert.equal(decompressor.decompress(frame, 1001), undefined);
    assert.equal(decompressor.decompress(frame.subarray(0, -1), 1000), undefined);
    assert.equal(decompressor.decompress(randomBytes(50), 1000), undefined);
    assert.equal(decompressor.decompress(Buffer.alloc(0), 10), undefined);
    assert.ok(decompressor.decompress(frame, 1000)?.equals(Buffer.alloc(1000, 'a')));
  }
});
