/**
 * Checks if this machine can track with eBPF, and says what would help if it cannot. Used by `dattocli tracking` and by
 * the choice of a tracker.
 */
import { closeSync, existsSync, readFileSync } from 'node:fs';
import { AgentError, errnoCode, toAgentError } from '../../base/errors.ts';
import { Assembler } from '../../linux/bpf/assembler.ts';
import { Btf } from '../../linux/bpf/btf.ts';
import { loadTracingProgram, openLicense } from '../../linux/bpf/programs.ts';
import { raiseLockedMemoryLimit } from '../../linux/bpffs.ts';
import { readKernelTypes } from './kernel-types.ts';

export interface TrackingSupport {
  readonly supported: boolean;
  /** Why tracking is supported, or why not. */
  readonly why: string;
  /** Steps that would help; empty if tracking is supported. */
  readonly help: string;
}

const btfPath = '/sys/kernel/btf/vmlinux';

/** Tries each step that tracking needs, with the simplest program at each of the tracepoints. Leaves nothing behind. */
export async function trackingSupport(): Promise<TrackingSupport> {
  try {
    if (process.getuid?.() !== 0)
      throw new AgentError('NO_PERMISSION', 'loading eBPF programs needs root', {
        hint: 'run dattod as root',
      });
    if (!existsSync(btfPath)) throw noBtf();
    const types = readKernelTypes(new Btf(readFileSync(btfPath)));
    raiseLockedMemoryLimit();
    const nothing = new Assembler().mov(0, 0).exit().assemble();
    for (const { id } of Object.values(types.tracepoints))
      closeSync(await loadTracingProgram('probe', nothing, id, openLicense));
    return {
      supported: true,
      why: 'the kernel describes its types (BTF) and takes tracing programs',
      help: '',
    };
  } catch (thrown) {
    const error = explainRefusal(thrown);
    return { supported: false, why: error.message, help: error.hint ?? '' };
  }
}

/** Turns a refusal of bpf(2) into an error for the user. */
export function explainRefusal(thrown: unknown): AgentError {
  const code = errnoCode(thrown);
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  if (thrown instanceof AgentError) return thrown;
  if (code === 'ENOENT' && message.includes(btfPath)) return noBtf();
  if (code === 'EPERM' || code === 'EACCES')
    return new AgentError('NO_PERMISSION', `the kernel does not let this process track writes: ${message}`, {
      hint: 'run dattod as root, outside of containers that take CAP_BPF, CAP_PERFMON or CAP_SYS_ADMIN away',
      cause: thrown,
    });
  if (
    code === 'ENOSYS' ||
    code === 'EINVAL' ||
    code === 'E2BIG' ||
    code === 'ENOTSUPP' ||
    code === 'EOPNOTSUPP'
  )
    return new AgentError('NOT_SUPPORTED', `this kernel cannot track writes with eBPF: ${message}`, {
      hint: 'Linux 5.10 or later with BTF is needed (CONFIG_DEBUG_INFO_BTF, CONFIG_BPF_SYSCALL)',
      cause: thrown,
    });
  if (code === 'ENOMEM')
    return new AgentError('NOT_SUPPORTED', `there is no memory for the maps of tracking: ${message}`, {
      hint: 'give dattod more memory, or track with a coarser unit',
      cause: thrown,
    });
  return toAgentError(thrown);
}

function noBtf(): AgentError {
  return new AgentError('NOT_SUPPORTED', `this kernel does not describe its types: ${btfPath} is missing`, {
    hint: 'Linux 5.10 or later, built with CONFIG_DEBUG_INFO_BTF, is needed for eBPF tracking',
  });
}
