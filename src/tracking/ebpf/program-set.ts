/**
 * A set of programs that belong together, attached and pinned, with three copies of each: `request` for devices with
 * requests, `bio` for devices without. A set with a missing copy counts as gone, because writes may have passed unseen
 * while the copy was missing.
 *
 *     DIRECTORY/SET-TRACEPOINT-COPY        the program
 *     DIRECTORY/SET-TRACEPOINT-COPY-link   the link that attaches it
 */
import { createHash } from 'node:crypto';
import { closeSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { openPin, pin } from '../../linux/bpf/pins.ts';
import {
  attachTracing,
  linkedProgram,
  loadTracingProgram,
  openLicense,
  programInfo,
} from '../../linux/bpf/programs.ts';
import type { KernelTypes, TracepointName } from './kernel-types.ts';
import type { Style } from './layout.ts';
import { bioCompleteProgram, bioQueueProgram } from './programs/bio.ts';
import { copies, type ProgramContext } from './programs/frame.ts';
import { requestIssueProgram, requestProgram } from './programs/request.ts';

export type SetName = 'request' | 'bio';

/**
 * The most steps of the marking loops. A run of 4 GiB at any place takes 140 steps in a range whose units are bits, and
 * 420 if they are bytes. A discard of 256 small pieces takes some 800 on a disk with one tracked range. The verifier
 * checks about 290 (520) instructions a step, of one million in all.
 */
const steps = { bits: { plain: 400, walk: 1000 }, bytes: { plain: 600, walk: 700 } } as const;

/** Steps for a request whose end was not seen: 4 MiB at any place if units are bits, 2 MiB if they are bytes. */
const leftoverSteps = 64;

/** Attached in this order: once the beginning of a write is seen, its end must be seen too. */
const members: Readonly<Record<SetName, readonly TracepointName[]>> = {
  request: ['block_rq_complete', 'block_rq_issue'],
  bio: ['block_bio_complete', 'block_bio_queue'],
};

export interface AttachedProgram {
  readonly tracepoint: TracepointName;
  readonly copy: number;
  readonly id: number;
  readonly program: number;
  readonly link: number;
}

export class ProgramSet {
  readonly name: SetName;
  readonly programs: readonly AttachedProgram[];

  constructor(name: SetName, programs: readonly AttachedProgram[]) {
    this.name = name;
    this.programs = programs;
  }

  /** IDs of the programs. They differ after every load. */
  get ids(): number[] {
    return this.programs.map((each) => each.id);
  }

  /** Checks the set through its descriptors. Returns the fault; undefined if all programs are attached. */
  fault(): string | undefined {
    for (const { tracepoint, copy, id, link } of this.programs)
      if (linkedProgram(link) !== id) return `copy ${copy} of the program at ${tracepoint} is detached`;
    return undefined;
  }

  /** For each tracepoint, returns how many events each copy was skipped for; zeros if the kernel does not skip. */
  misses(): ReadonlyMap<TracepointName, readonly bigint[]> {
    const misses = new Map<TracepointName, bigint[]>();
    for (const { tracepoint, program } of this.programs) {
      const list = misses.get(tracepoint) ?? [];
      list.push(programInfo(program).recursionMisses ?? 0n);
      misses.set(tracepoint, list);
    }
    return misses;
  }

  close(): void {
    for (const { program, link } of this.programs) {
      closeSync(link);
      closeSync(program);
    }
  }
}

/** Loads, attaches and pins the set. Throws VerifierError or SystemCallError; pins made so far are removed then. */
export async function loadSet(
  directory: string,
  name: SetName,
  context: Omit<ProgramContext, 'copy'>,
): Promise<ProgramSet> {
  await removeSet(directory, name);
  const loaded = await loadPrograms(name, context);
  const programs: AttachedProgram[] = [];
  try {
    for (let next = loaded.shift(); next !== undefined; next = loaded.shift()) {
      const { tracepoint, copy, program } = next;
      const path = pinPath(directory, name, tracepoint, copy);
      const link = attachOrClose(program);
      programs.push({ ...next, id: programInfo(program).id, link });
      pin(program, path);
      pin(link, `${path}-link`);
    }
  } catch (thrown) {
    for (const { program } of loaded) closeSync(program);
    new ProgramSet(name, programs).close();
    await removeSet(directory, name);
    throw thrown;
  }
  return new ProgramSet(name, programs);
}

function attachOrClose(program: number): number {
  try {
    return attachTracing(program);
  } catch (thrown) {
    closeSync(program);
    throw thrown;
  }
}

type LoadedProgram = Pick<AttachedProgram, 'tracepoint' | 'copy' | 'program'>;

/** Loads all programs at once, because the verifier takes a fifth of a second for each. Does not attach them. */
async function loadPrograms(name: SetName, context: Omit<ProgramContext, 'copy'>): Promise<LoadedProgram[]> {
  const wanted = members[name].flatMap((tracepoint) =>
    Array.from({ length: copies }, (_, copy) => ({ tracepoint, copy })),
  );
  const outcomes = await Promise.allSettled(
    wanted.map(async ({ tracepoint, copy }) => ({
      tracepoint,
      copy,
      program: await loadTracingProgram(
        `dattod_${tracepoint.replace('block_', '')}`,
        emit[tracepoint]({ ...context, copy }),
        context.types.tracepoints[tracepoint].id,
        openLicense,
      ),
    })),
  );
  const loaded = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  const failed = outcomes.find((outcome) => outcome.status === 'rejected');
  if (failed === undefined) return loaded;
  for (const { program } of loaded) closeSync(program);
  throw failed.reason;
}

/** Opens a set that an earlier process pinned. Returns undefined if the set is not complete. */
export function openSet(directory: string, name: SetName): ProgramSet | undefined {
  const programs: AttachedProgram[] = [];
  const opened: number[] = [];
  for (const tracepoint of members[name])
    for (let copy = 0; copy < copies; copy++) {
      const path = pinPath(directory, name, tracepoint, copy);
      const program = openPin(path);
      const link = openPin(`${path}-link`);
      for (const fd of [program, link]) if (fd !== undefined) opened.push(fd);
      if (program === undefined || link === undefined) continue;
      programs.push({ tracepoint, copy, id: programInfo(program).id, program, link });
    }
  const set = new ProgramSet(name, programs);
  if (programs.length === members[name].length * copies && set.fault() === undefined) return set;
  for (const fd of opened) closeSync(fd);
  return undefined;
}

/** Unpins a set. It is detached when the last open descriptor is closed. */
export async function removeSet(directory: string, name: SetName): Promise<void> {
  for (const tracepoint of members[name])
    for (let copy = 0; copy < copies; copy++) {
      const path = pinPath(directory, name, tracepoint, copy);
      await rm(`${path}-link`, { force: true });
      await rm(path, { force: true });
    }
}

const emit: Readonly<Record<TracepointName, (context: ProgramContext) => Buffer>> = {
  block_rq_issue: (context) => requestIssueProgram(context, leftoverSteps),
  block_rq_complete: (context) => requestProgram(context, steps[context.style]),
  block_bio_queue: (context) => bioQueueProgram(context, steps[context.style].plain),
  block_bio_complete: (context) => bioCompleteProgram(context, steps[context.style].plain),
};

/**
 * Returns a hash of all instructions of the programs, without the descriptors of the maps. It distinguishes these
 * programs from those of another version of the agent. 16 hexadecimal digits.
 */
export function programsDigest(types: KernelTypes, style: Style): string {
  const hash = createHash('sha256');
  const maps = { ranges: 1, inFlight: 2, nesting: 3, control: 4, requests: 5 };
  for (const tracepoint of Object.values(members).flat())
    for (const probeRead of [false, true])
      for (let copy = 0; copy < copies; copy++)
        hash.update(emit[tracepoint]({ types, maps, style, probeRead, copy }));
  return hash.digest('hex').slice(0, 16);
}

function pinPath(directory: string, name: SetName, tracepoint: TracepointName, copy: number): string {
  return join(directory, `${name}-${tracepoint}-${copy}`);
}
