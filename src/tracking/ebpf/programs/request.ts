/**
 * The programs for devices with requests (most disks). `block_rq_complete` marks the sectors that the request wrote.
 *
 * `block_rq_issue` remembers the request (remember.ts), because some kernels do not show every end. The end may come in
 * an interrupt on top of a task in whose context tracing programs are not run.
 *
 * A discard may carry many disjoint pieces, and the request's own sectors show one wrong run. So its bios are walked.
 * Operations from 32 on are commands passed through (SG_IO, NVMe): those that send data may write anywhere.
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

/** `steps`: for the marking of a request whose end was not seen. */
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
  // An entry has no room for the disjoint pieces of a discard. They are free space as long as a filesystem is there.
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
  // The bytes left after this completion, computed without a branch: a branch would make the verifier check all paths
  // twice.
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
  // After the marks: a reader that reads the entries first and then the marks misses no write.
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
