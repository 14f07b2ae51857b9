import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { nameLength } from '../names.ts';
import {
  DirectoryBuilder,
  type Encoding,
  encodeHeader,
  encodeTrailer,
  headerLength,
  packObject,
  packOfObject,
  parseDirectory,
  parseHeader,
  parseTrailer,
  tagLength,
} from './format.ts';

const id = '00112233445566778899aabbccddeeff';
const other = 'ff112233445566778899aabbccddeeff';
const damaged = { code: 'VAULT_DAMAGED' };

test('the layout is as in docs/formats/vault.md', () => {
  assert.equal(encodeHeader(id, 'pages').toString('hex'), `444154545041434b0100000002000000${id}`);
  // The CRC-32C algorithm is tested in base/; here only the place of the checksum.
  const trailer = encodeTrailer({ directoryLength: 0x01020304, packLength: 0x05060708090a });
  assert.match(trailer.toString('hex'), /^040302010a09080706050000[0-9a-f]{8}4441545450454e44$/);
  const directory = new DirectoryBuilder();
  directory.add(Buffer.alloc(32, 0xab), 0x10, 0x20, 1);
  assert.equal(
    directory.finish(other, 0x0102).toString('hex'),
    `${other}02010000000000000100000000000000${'ab'.repeat(32)}100000002000000001000000`,
  );
});

test('directories are read back unchanged', () => {
  const part = fc
    .record({
      name: fc.uint8Array({ minLength: nameLength, maxLength: nameLength }),
      plainLength: fc.integer({ min: 2, max: 1024 * 1024 }),
      encoding: fc.constantFrom<Encoding>(0, 1),
      share: fc.double({ min: 0, max: 0.99, noNaN: true }),
    })
    .map(({ share, ...rest }) => ({
      ...rest,
      encodedLength:
        rest.encoding === 0 ? rest.plainLength : Math.max(1, Math.floor(rest.plainLength * share)),
    }));
  fc.assert(
    fc.property(fc.array(part, { maxLength: 1500 }), fc.nat(), (parts, created) => {
      const directory = new DirectoryBuilder();
      for (let again = 0; again < 2; again++) {
        directory.clear();
        let end = headerLength;
        for (const { name, encodedLength, plainLength, encoding } of parts) {
          directory.add(name, encodedLength, plainLength, encoding);
          end += encodedLength + tagLength;
        }
        const back = parseDirectory(id, Buffer.from(directory.finish(other, created)), end);
        assert.deepEqual([back.writer, back.created, back.parts.length], [other, created, parts.length]);
        let offset = headerLength;
        for (const [i, { name, ...rest }] of back.parts.entries()) {
          const { name: expectedName, encodedLength, plainLength, encoding } = parts[i]!;
          assert.ok(name.equals(expectedName));
          assert.deepEqual(rest, { offset, encodedLength, plainLength, encoding });
          offset += encodedLength + tagLength;
        }
        assert.throws(() => parseDirectory(id, directory.finish(other, created), end + 1), damaged);
      }
    }),
    { numRuns: 50 },
  );
});

test('invalid directories are refused', () => {
  const make = (encodedLength: number, plainLength: number, encoding: number): Buffer => {
    const directory = new DirectoryBuilder();
    directory.add(Buffer.alloc(32, 1), encodedLength, plainLength, encoding as Encoding);
    return Buffer.from(directory.finish(other, 0));
  };
  const parse = (plain: Buffer, encodedLength: number): unknown =>
    parseDirectory(id, plain, headerLength + encodedLength + tagLength);
  for (const [encoded, plain, encoding] of [
    [0, 10, 1],
    [10, 0, 0],
    [10, 11, 0],
    [11, 10, 1],
    [10, 10, 1],
    [10, 10, 2],
    [10, 1024 * 1024 + 1, 1],
    [10, 20, 0x101],
  ] as const)
    assert.throws(
      () => parse(make(encoded, plain, encoding), encoded),
      damaged,
      `${encoded} ${plain} ${encoding}`,
    );
  const good = make(10, 20, 1);
  parse(good, 10);
  assert.throws(() => parse(good.subarray(0, -1), 10), damaged);
  assert.throws(() => parse(good.subarray(0, 31), 10), damaged);
  assert.throws(() => parse(Buffer.from(good).fill(2, 24, 25), 10), damaged);
});

test('a header or trailer with any flipped bit is refused', () => {
  const header = encodeHeader(id, 'chunks');
  assert.equal(parseHeader(id, header), 'chunks');
  for (let bit = 0; bit < header.length * 8; bit++) {
    const flipped = Buffer.from(header);
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    // Kind 3 and others are refused. One flipped bit never turns 1 into 2.
    assert.throws(() => parseHeader(id, flipped), damaged, `bit ${bit}`);
  }
  assert.throws(() => parseHeader(id, header.subarray(0, 31)), damaged);

  const size = 5000;
  const trailer = encodeTrailer({ directoryLength: 300, packLength: size });
  assert.deepEqual(parseTrailer(id, size, trailer), { directoryLength: 300, packLength: size });
  for (let bit = 0; bit < trailer.length * 8; bit++) {
    const flipped = Buffer.from(trailer);
    flipped[bit >> 3]! ^= 1 << (bit & 7);
    assert.throws(() => parseTrailer(id, size, flipped), damaged, `bit ${bit}`);
  }
  assert.throws(() => parseTrailer(id, size - 1, trailer), damaged);
  assert.throws(() => parseTrailer(id, 50, trailer), damaged);
  const beyond = encodeTrailer({ directoryLength: size, packLength: size });
  assert.throws(() => parseTrailer(id, size, beyond), damaged);
});

test('object keys of packs are converted to IDs and back', () => {
  assert.equal(packObject(id), `packs/00/${id}`);
  assert.equal(packOfObject(packObject(id)), id);
  for (const foreign of [
    `packs/01/${id}`,
    `packs/${id}`,
    `packs/00/${id}x`,
    'packs/00/readme',
    `packs/00/${id.toUpperCase()}`,
  ])
    assert.equal(packOfObject(foreign), undefined);
});
