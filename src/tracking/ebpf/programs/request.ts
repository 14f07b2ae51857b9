/**
 * The program for devices with requests (most disks): at `block_rq_complete` it marks what the request wrote.
 *
 * A discard may carry many disjoint pieces, of which the request's own sectors show one wrong run, so its bios are
 * walked. Operations from 32 on are commands passed through (SG_IO, NVMe): those that send data may write anywhere.
 */
import { Assembler } from '../../../linux/bpf/assembler.ts';
import {
  countInAllRanges,
  enter,
  frame,
  frameRegister,
  leave,
  loadDevice,
  type ProgramContext,
  selectCounter,
} from './frame.ts';
import { loadBio, mark } from './mark.ts';

const firstPassthrough = 32;
/** Third argument of the tracepoint: bytes completed, u32. */
const bytesArgument = 16;

export function requestProgram(context: ProgramContext, steps: { plain: number; walk: number }): Buffer {
  const { types, maps } = context;
  const a = new Assembler();
  a.load(4, 9, 1, bytesArgument);
  enter(a, context, 'block_rq_complete');
  a.load(4, 8, 6, types.requestFlags).alu('and', 8, 0xff);
  // Operations that write have the lowest bit set (include/linux/blk_types.h).
  a.movReg(1, 8).alu('and', 1, 1).jump('eq', 1, 0, 'out');
  loadDevice(a, types, 6, types.requestToDisk);
  a.jump('ge', 8, firstPassthrough, 'passthrough');
  for (const reset of types.operations.zoneResets) a.jump('eq', 8, reset, 'zone reset');
  a.alu('rsh', 9, 9).jump('eq', 9, 0, 'out');
  a.jump('eq', 8, types.operations.discard, 'discard');
  a.load(8, 7, 6, types.requestSector).store(8, frameRegister, frame.start, 7);
  a.aluReg('add', 9, 7).store(8, frameRegister, frame.end, 9);
  mark(a, context, { prefix: 'plain ', steps: steps.plain, done: 'out' });

  a.label('discard').load(8, 6, 6, types.requestBio).jump('eq', 6, 0, 'out');
  loadBio(a, context);
  mark(a, context, { prefix: 'walk ', steps: steps.walk, done: 'out', walk: true });

  a.label('passthrough');
  selectCounter(a, 'passthrough').goto('count');
  a.label('zone reset');
  selectCounter(a, 'zoneReset');
  countInAllRanges(a, maps);
  leave(a);
  return a.assemble();
}
