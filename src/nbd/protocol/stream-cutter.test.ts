import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { StreamCutter } from './stream-cutter.ts';

type Want = { kind: 'bytes' | 'into' | 'skip'; length: number };

/** Splits `stream` into the wanted pieces. It arrives in chunks of the given lengths. */
function cut(stream: Buffer, chunkLengths: number[], wants: Want[]): { pieces: string[]; rest: Buffer } {
  const pieces: string[] = [];
  let next = 0;
  let into: Buffer | undefined;
  const ask = (): void => {
    const want = wants[next++];
    if (want?.kind === 'bytes') cutter.wantBytes(want.length);
    if (want?.kind === 'into') cutter.wantInto((into = Buffer.alloc(want.length)));
    if (want?.kind === 'skip') cutter.wantSkip(want.length);
  };
  const cutter = new StreamCutter((piece) => {
    pieces.push((into ?? piece).toString('hex'));
    into = undefined;
    ask();
  });
  ask();
  // All chunks use one buffer, like a socket with its own read buffer.
  const reused = Buffer.alloc(stream.length);
  let at = 0;
  for (const length of [...chunkLengths, stream.length]) {
    const part = stream.subarray(at, at + length);
    reused.fill(0xee);
    part.copy(reused);
    cutter.push(reused.subarray(0, part.length));
    at += part.length;
  }
  return { pieces, rest: cutter.takeRest() };
}

test('pieces are the same for every split of the stream', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ maxLength: 300 }),
      fc.array(fc.nat(50), { maxLength: 40 }),
      fc.array(
        fc.record({
          kind: fc.constantFrom<Want['kind']>('bytes', 'into', 'skip'),
          length: fc.nat(90),
        }),
        { maxLength: 12 },
      ),
      (bytes, chunkLengths, wants) => {
        const stream = Buffer.from(bytes);
        const expected: string[] = [];
        let at = 0;
        let complete = true;
        for (const want of wants) {
          if (at + want.length > stream.length) {
            complete = false;
            break;
          }
          expected.push(want.kind === 'skip' ? '' : stream.subarray(at, at + want.length).toString('hex'));
          at += want.length;
        }
        const { pieces, rest } = cut(stream, chunkLengths, wants);
        assert.deepEqual(pieces, expected);
        if (complete) assert.deepEqual(rest, stream.subarray(at));
      },
    ),
  );
});

test('midPiece is true within a piece and false between pieces', () => {
  const cutter = new StreamCutter(() => cutter.wantBytes(4));
  cutter.wantBytes(4);
  assert.equal(cutter.midPiece, false);
  cutter.push(Buffer.from('abcdef'));
  assert.equal(cutter.midPiece, true);
  cutter.push(Buffer.from('gh'));
  assert.equal(cutter.midPiece, false);
});

test('a hold keeps received bytes until the release', () => {
  const pieces: string[] = [];
  const cutter = new StreamCutter((piece) => {
    pieces.push(piece.toString());
    cutter.wantBytes(2);
    cutter.hold();
  });
  cutter.wantBytes(2);
  cutter.push(Buffer.from('abcde'));
  cutter.push(Buffer.from('f'));
  assert.deepEqual(pieces, ['ab']);
  cutter.release();
  assert.deepEqual(pieces, ['ab', 'cd']);
  cutter.release();
  cutter.release();
  assert.deepEqual(pieces, ['ab', 'cd', 'ef']);
});

test('payload can be received directly into its destination', () => {
  const destination = Buffer.alloc(6);
  const pieces: string[] = [];
  const cutter = new StreamCutter((piece) => {
    pieces.push(piece.toString());
    if (pieces.length === 1) cutter.wantInto(destination);
    else cutter.wantBytes(1);
  });
  const place = (): Uint8Array | undefined => cutter.destination;
  cutter.wantBytes(2);
  assert.equal(place(), undefined);
  cutter.push(Buffer.from('ab12'));
  const rest = place();
  assert.equal(rest?.length, 4);
  rest.set(Buffer.from('345'));
  cutter.filled(3);
  assert.equal(pieces.length, 1);
  place()?.set(Buffer.from('6'));
  assert.throws(() => cutter.filled(2), RangeError);
  cutter.filled(1);
  assert.equal(destination.toString(), '123456');
  assert.equal(place(), undefined);
  cutter.push(Buffer.from('z'));
  assert.deepEqual(pieces, ['ab', '', 'z']);
});
