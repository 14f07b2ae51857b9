/**
 * BPF programs and the links that attach them. The programs here have the type TRACING and the attach type
 * BPF_TRACE_RAW_TP ("tp_btf"). They get a tracepoint's own arguments as typed pointers, and need no helper to follow
 * them. Unlike programs of the type TRACEPOINT, they are not skipped while another program runs on the processor.
 */
import { closeSync } from 'node:fs';
import { errnoCode } from '../../base/errors.ts';
import { objectInfo } from './maps.ts';
import { Attributes, bpf, bpfAsync, cString } from './syscall.ts';

const BPF_PROG_TYPE_SOCKET_FILTER = 1;
const BPF_PROG_TYPE_TRACING = 26;
const BPF_TRACE_RAW_TP = 23;
const BPF_LINK_TYPE_RAW_TRACEPOINT = 1;
const BPF_LINK_TYPE_TRACING = 2;
/** Some helpers are only for programs under the GPL. On newer kernels, so is following pointers. */
export const openLicense = 'Dual MIT/GPL';
/** Enough for the log of the verifier: level 4 writes statistics and the error, without a trace of the program. */
const logBytes = 1 << 20;

/** Thrown if the verifier refused a program. `log` is the verifier's log. */
class VerifierError extends Error {
  readonly code: string;
  readonly log: string;

  constructor(program: string, code: string, log: string) {
    const lines = log.trimEnd().split('\n');
    super(`the kernel refused the program ${program} (${code}): ${lines.slice(-4).join(' / ')}`);
    this.name = 'VerifierError';
    this.code = code;
    this.log = log;
  }
}

/**
 * Loads a program for the tracepoint with the BTF type ID `tracepoint`. Returns a file descriptor. `license` decides
 * which helpers the program may call. Throws VerifierError if the verifier refuses the program.
 */
export function loadTracingProgram(
  name: string,
  code: Uint8Array,
  tracepoint: number,
  license: string,
): Promise<number> {
  return load(name, code, BPF_PROG_TYPE_TRACING, license, (attributes) =>
    attributes.u32(68, BPF_TRACE_RAW_TP).u32(108, tracepoint),
  );
}

/** True if the verifier accepts a program of the simplest type. Used to test if the kernel has a feature. */
export async function acceptsProgram(code: Uint8Array): Promise<boolean> {
  return accepted(load('probe', code, BPF_PROG_TYPE_SOCKET_FILTER, openLicense, (attributes) => attributes));
}

/** True if the verifier accepts a tracing program. */
export async function acceptsTracingProgram(code: Uint8Array, tracepoint: number): Promise<boolean> {
  return accepted(loadTracingProgram('probe', code, tracepoint, openLicense));
}

async function accepted(loading: Promise<number>): Promise<boolean> {
  try {
    closeSync(await loading);
    return true;
  } catch (thrown) {
    if (thrown instanceof VerifierError) return false;
    throw thrown;
  }
}

async function load(
  name: string,
  code: Uint8Array,
  type: number,
  license: string,
  add: (attributes: Attributes) => Attributes,
): Promise<number> {
  const attempt = (log?: Buffer): Promise<number> => {
    const attributes = new Attributes(120)
      .u32(0, type)
      .u32(4, code.length / 8)
      .pointer(8, code)
      .pointer(16, cString(license))
      .name(48, name);
    if (log !== undefined) attributes.u32(24, 1).u32(28, log.length).pointer(32, log);
    return patiently(() => bpfAsync('progLoad', add(attributes), name));
  };
  try {
    return await attempt();
  } catch (thrown) {
    const code = errnoCode(thrown) ?? '';
    if (['EPERM', 'ENOMEM', 'ENOSYS', 'EAGAIN'].includes(code)) throw thrown;
    const log = Buffer.alloc(logBytes);
    const again = await attempt(log).catch(() => undefined);
    if (again !== undefined) return again;
    throw new VerifierError(name, code, log.toString('latin1').split('\0')[0]!);
  }
}

/** Tries again after EAGAIN: the verifier stops with it if a signal is pending. */
async function patiently(call: () => Promise<number>): Promise<number> {
  for (let attempt = 1; ; attempt++)
    try {
      return await call();
    } catch (thrown) {
      if (errnoCode(thrown) !== 'EAGAIN' || attempt === 20) throw thrown;
    }
}

/** Attaches a tracing program to its tracepoint. The link exists as long as its descriptor or a pin. */
export function attachTracing(program: number): number {
  return bpf('rawTracepointOpen', new Attributes(16).u32(8, program), 'attach');
}

export interface ProgramInfo {
  readonly id: number;
  readonly name: string;
  /** Events for which the program was skipped, as it ran already on that processor; undefined before Linux 5.12. */
  readonly recursionMisses: bigint | undefined;
  /** Instructions that the verifier checked; undefined before Linux 5.16. */
  readonly verifiedInstructions: number | undefined;
}

/** Returns the struct bpf_prog_info of an open program. */
export function programInfo(fd: number): ProgramInfo {
  const info = objectInfo(fd, 224);
  const known = info.known ?? 0;
  return {
    id: info.readUInt32LE(4),
    name: info.toString('latin1', 64, 80).split('\0')[0]!,
    recursionMisses: known >= 216 ? info.readBigUInt64LE(208) : undefined,
    verifiedInstructions: known >= 220 ? info.readUInt32LE(216) : undefined,
  };
}

/** Returns the ID of the program that an open link attaches; undefined if it is not a tracepoint's link (any more). */
export function linkedProgram(fd: number): number | undefined {
  const info = objectInfo(fd, 64);
  const type = info.readUInt32LE(0);
  if (type !== BPF_LINK_TYPE_RAW_TRACEPOINT && type !== BPF_LINK_TYPE_TRACING) return undefined;
  return info.readUInt32LE(8);
}
