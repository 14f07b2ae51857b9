import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Assembler } from './assembler.ts';

/** One instruction as hex, in the order of the bytes. */
function hex(a: Assembler): string[] {
  return (a.assemble().toString('hex').match(/.{16}/g) ?? []).map((each) => each);
}

test('instructions are encoded as in the instruction set document', () => {
  const a = new Assembler()
    .mov(0, -1)
    .movReg(6, 1)
    .alu('and', 7, 0xff)
    .aluReg('lsh', 3, 5)
    .load(4, 1, 6, 24)
    .load(8, 7, 10, -32)
    .store(8, 10, -8, 2)
    .storeImmediate(1, 0, 0, 1)
    .call(1)
    .exit();
  assert.deepEqual(hex(a), [
    'b7000000ffffffff',
    'bf16000000000000',
    '57070000ff000000',
    '6f53000000000000',
    '6161180000000000',
    '79a7e0ff00000000',
    '7b2af8ff00000000',
    '7200000001000000',
    '8500000001000000',
    '9500000000000000',
  ]);
});

test('64-bit loads take two instructions, with the upper half in the second', () => {
  const a = new Assembler().load64(1, 0x0123456789abcdefn).mapFd(2, 7).mapValue(3, 8, 16);
  assert.deepEqual(hex(a), [
    '18010000efcdab89',
    '0000000067452301',
    '1812000007000000',
    '0000000000000000',
    '1823000008000000',
    '0000000010000000',
  ]);
  assert.equal(a.length, 6);
});

test('atomic instructions have their operation in the immediate', () => {
  assert.deepEqual(hex(new Assembler().atomicAdd(1, 8, 2).atomicOr(0, 0, 3)), [
    'db21080000000000',
    'db30000040000000',
  ]);
});

test('jumps count from the next instruction, forwards and backwards, across 64-bit loads', () => {
  const a = new Assembler()
    .label('back')
    .jump('eq', 1, 0, 'on')
    .load64(2, 1n)
    .label('on')
    .jumpReg('le', 7, 9, 'back')
    .goto('end')
    .label('end')
    .exit();
  assert.deepEqual(hex(a), [
    '1501020000000000',
    '1802000001000000',
    '0000000000000000',
    'bd97fcff00000000',
    '0500000000000000',
    '9500000000000000',
  ]);
});

test('wrong labels are errors', () => {
  assert.throws(() => new Assembler().goto('nowhere').assemble(), /no label nowhere/);
  assert.throws(() => new Assembler().label('a').label('a'), /label a is there twice/);
  const far = new Assembler().goto('far');
  for (let i = 0; i < 40_000; i++) far.mov(0, 0);
  assert.throws(() => far.label('far').exit().assemble(), /40000 instructions away, more than 32767/);
});
