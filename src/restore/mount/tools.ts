/** Runs the system's own tools (mount, losetup, nbdfuse, e2fsck, …) and says what is missing where one is. */
import { MiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { findProgram, type ProgramResult, programEnvironment, runProgram } from '../../linux/program.ts';

export interface ToolOptions {
  /** Exit codes that are no failure; default only 0. */
  readonly allow?: readonly number[] | 'any';
  readonly cwd?: string;
  readonly signal?: AbortSignal | undefined;
}

/** Which Debian package has it, for the hint. */
const packages: Readonly<Record<string, string>> = {
  mount: 'mount',
  umount: 'mount',
  losetup: 'mount (or util-linux)',
  nbdfuse: 'libnbd-bin (or nbdfuse)',
  'qemu-storage-daemon': 'qemu-system-common (or qemu-storage-daemon)',
  'nbd-client': 'nbd-client',
  e2fsck: 'e2fsprogs',
  xfs_repair: 'xfsprogs',
  cp: 'coreutils',
  unshare: 'util-linux',
};

/** Of the tool's file; undefined where it is not installed. */
export function findTool(name: string): Promise<string | undefined> {
  return Promise.resolve(findProgram(name));
}

/** Throws NOT_SUPPORTED, naming the package. */
export async function needTool(name: string): Promise<string> {
  const path = await findTool(name);
  if (path !== undefined) return path;
  throw new AgentError('NOT_SUPPORTED', `${name} is not installed`, {
    hint: `install Debian's package ${packages[name] ?? name}, or its like`,
  });
}

/** What every tool runs with. */
export const toolEnvironment: Readonly<Record<string, string>> = programEnvironment();

/** Runs a tool to its end. Throws NOT_SUPPORTED, MOUNT_FAILED with what it said, CANCELLED. */
export async function runTool(
  name: string,
  args: readonly string[],
  { allow, cwd, signal }: ToolOptions = {},
): Promise<ProgramResult> {
  const path = await needTool(name);
  // The session is shared so that a command that is left at once takes along what it runs.
  const options = { cwd, signal, mostOutput: 64 * MiB, sharesSession: true };
  const result = await runProgram(path, args, options).catch((cause: unknown) => {
    if (signal?.aborted === true) throw new AgentError('CANCELLED', `Cancelled while ${name} ran`, { cause });
    throw new AgentError('MOUNT_FAILED', `${name} cannot be run: ${String(cause)}`, { cause });
  });
  const { code, stdout, stderr, cut } = result;
  const isAllowed = code === 0 || (code !== null && (allow === 'any' || allow?.includes(code) === true));
  if (isAllowed && !cut) return result;
  const said = (stderr.trim() === '' ? stdout : stderr).trim().split('\n').slice(-3).join('; ');
  const how =
    code === null ? `signal ${result.signal ?? '?'}` : `exit code ${code}${cut ? ', printed too much' : ''}`;
  throw new AgentError('MOUNT_FAILED', `${name} failed (${how}): ${said.slice(0, 600)}`);
}
