/** Runs tools of the system (mount, losetup, nbdfuse, e2fsck, …), and names the package of a missing one. */
import { MiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { findProgram, type ProgramResult, programEnvironment, runProgram } from '../../linux/program.ts';

export interface ToolOptions {
  /** Exit codes other than 0 that are not an error. */
  readonly allow?: readonly number[] | 'any';
  readonly cwd?: string;
  readonly signal?: AbortSignal | undefined;
}

/** The Debian package of each tool, for the hint. */
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

/** Returns the path of a tool; undefined if it is not installed. */
export function findTool(name: string): Promise<string | undefined> {
  return Promise.resolve(findProgram(name));
}

/** Returns the path of a tool. Throws NOT_SUPPORTED, which names the package. */
export async function needTool(name: string): Promise<string> {
  const path = await findTool(name);
  if (path !== undefined) return path;
  throw new AgentError('NOT_SUPPORTED', `${name} is not installed`, {
    hint: `install Debian's package ${packages[name] ?? name}, or the equivalent of your distribution`,
  });
}

/** The environment of every tool. */
export const toolEnvironment: Readonly<Record<string, string>> = programEnvironment();

/** Runs a tool to its end. Throws NOT_SUPPORTED, MOUNT_FAILED with the tool's output, CANCELLED. */
export async function runTool(
  name: string,
  args: readonly string[],
  { allow, cwd, signal }: ToolOptions = {},
): Promise<ProgramResult> {
  const path = await needTool(name);
  // The tool shares our session, so that it ends with a command that is ended at once.
  const options = { cwd, signal, mostOutput: 64 * MiB, sharesSession: true };
  const result = await runProgram(path, args, options).catch((cause: unknown) => {
    if (signal?.aborted === true) throw new AgentError('CANCELLED', `Cancelled while ${name} ran`, { cause });
    throw new AgentError('MOUNT_FAILED', `Cannot run ${name}: ${String(cause)}`, { cause });
  });
  const { code, stdout, stderr, cut } = result;
  const isAllowed = code === 0 || (code !== null && (allow === 'any' || allow?.includes(code) === true));
  if (isAllowed && !cut) return result;
  const said = (stderr.trim() === '' ? stdout : stderr).trim().split('\n').slice(-3).join('; ');
  const how =
    code === null ? `signal ${result.signal ?? '?'}` : `exit code ${code}${cut ? ', too much output' : ''}`;
  throw new AgentError('MOUNT_FAILED', `${name} failed (${how}): ${said.slice(0, 600)}`);
}
