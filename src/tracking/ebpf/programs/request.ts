/**
 * The programs for devices with requests (most disks): at `block_rq_complete` is marked what the request wrote.
 *
 * At `block_rq_issue` it is remembered (remember.ts), since there are kernels on which an end is not seen: an interrupt
 * that comes on top of a task in whose context tracing programs are not run.
 *
 * A discard may carry many disjoint pieces, of which the request's own sectors show one wrong run, so its bios are
 * walked. Operations from 32 on are commands passed through (SG_IO, NVMe): those that send data may write anywhere.
 */
import { Assembler } from '../../../linux/bpf/assembler.ts';
import {
  copies,
  countAndLeave,
  enter,
  frame,
  frameRegister,
  loadDevice,
  loadWritingOperation,
  lookupRange,
  type ProgramContext,
} from './frame.ts';
import { loadBio, mark } from './mark.ts';
import { forget, remember } from './remember.ts';

const firstPassthrough = 32;
/** Third argument of the tracepoint: bytes completed, u32. */
const bytesArgument = 16;

/** `steps`: of the marking of a request whose end was not seen. */
export function requestIssueProgram(context: ProgramContext, steps: number): Buffer {
  const { types, maps } = context;
  const a = new Assembler();
  enter(a, context, 'block_rq_issue');
  loadWritingOperation(a, types.requestFlags);
  loadDevice(a, types, 6, types.requestToDisk);
  lookupRange(a, maps, 'out');
  a.jump('ge', 8, firstPassthrough, 'passthrough');
  for (const reset of types.operations.zoneResets) a.jump('eq', 8, reset, 'zone reset');
  a.load(8, 7, 6, types.requestSector);
  a.load(4, 9, 6, types.requestLength).alu('rsh', 9, 9).jump('eq', 9, 0, 'out');
  a.jump('ne', 8, types.operations.discard, 'whole');
  // The disjoint pieces of a discard have no room in an entry. They are of free space, as long as a filesystem is there.
  a.load(8, 1, 6, types.requestBio).jump('eq', 1, 0, 'whole');
  a.load(8, 1, 1, types.bioNext).jump('ne', 1, 0, 'out');
  a.label('whole');
  remember(a, context, { map: maps.requests, steps, done: 'out', full: 'full' });

  countAndLeave(a, maps, [
    ['full', 'lostInFlight'],
    ['passthrough', 'passthrough'],
    ['zone reset', 'zoneReset'],
  ]);
  return a.assemble();
}

export function requestProgram(context: ProgramContext, steps: { plain: number; walk: number }): Buffer {
  const { types, maps } = context;
  const a = new Assembler();
  a.load(4, 9, 1, bytesArgument);
  enter(a, context, 'block_rq_complete');
  // What is left after this end, without a branch, which would make the verifier go all ways twice.
  a.store(8, frameRegister, frame.key, 6).load(4, 1, 6, types.requestLength).aluReg('sub', 1, 9);
  a.store(8, frameRegister, frame.scratch, 1);
  loadWritingOperation(a, types.requestFlags);
  loadDevice(a, types, 6, types.requestToDisk);
  a.jump('ge', 8, firstPassthrough, 'passthrough');
  for (const reset of types.operations.zoneResets) a.jump('eq', 8, reset, 'zone reset');
  a.alu('rsh', 9, 9).jump('eq', 9, 0, 'out');
  a.jump('eq', 8, types.operations.discard, 'discard');
  a.load(8, 7, 6, types.requestSector).store(8, frameRegister, frame.start, 7);
  a.aluReg('add', 9, 7).store(8, frameRegister, frame.end, 9);
  mark(a, context, { prefix: 'plain ', steps: steps.plain, done: 'marked' });

  a.label('discard').load(8, 6, 6, types.requestBio).jump('eq', 6, 0, 'out');
  loadBio(a, context);
  mark(a, context, { prefix: 'walk ', steps: steps.walk, done: 'marked', walk: true });

  a.label('marked');
  // After the marks: whoever reads the entries first and the marks then misses none.
  if (context.copy === copies - 1) {
    a.load(8, 1, frameRegister, frame.scratch).jump('ne', 1, 0, 'out');
    forget(a, maps.requests);
  }
  a.goto('out');

  countAndLeave(a, maps, [
    ['passthrough', 'passthrough'],
    ['zone reset', 'zoneReset'],
  ]);
  return a.assemble();
}
