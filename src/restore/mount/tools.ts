/** Runs the system's own tools (mount, losetup, nbdfuse, e2fsck, …) and says what is missing where one is. */
import { execFile } from 'node:child_process';
import { access, constants } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError, errnoCode } from '../../base/errors.ts';

export interface ToolResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface ToolOptions {
  /** Exit codes that are no failure; default only 0. */
  readonly allow?: readonly number[] | 'any';
  readonly cwd?: string;
  readonly signal?: AbortSignal | undefined;
}

const places = ['/usr/local/sbin', '/usr/local/bin', '/usr/sbin', '/usr/bin', '/sbin', '/bin'];

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
};

/** Of the tool's file; undefined where it is not installed. */
export async function findTool(name: string): Promise<string | undefined> {
  for (const place of places) {
    const path = join(place, name);
    if (
      await access(path, constants.X_OK).then(
        () => true,
        () => false,
      )
    )
      return path;
  }
  return undefined;
}

/** Throws NOT_SUPPORTED, naming the package. */
export async function needTool(name: string): Promise<string> {
  const path = await findTool(name);
  if (path !== undefined) return path;
  throw new AgentError('NOT_SUPPORTED', `${name} is not installed`, {
    hint: `install Debian's package ${packages[name] ?? name}, or its like`,
  });
}

/** What every tool runs with: messages in one language, and found where they are for root. */
export const toolEnvironment: Readonly<Record<string, string>> = { PATH: places.join(':'), LC_ALL: 'C' };

/** Runs a tool to its end without a shell. Throws NOT_SUPPORTED, MOUNT_FAILED with what it said, CANCELLED. */
export async function runTool(
  name: string,
  args: readonly string[],
  options: ToolOptions = {},
): Promise<ToolResult> {
  const path = await needTool(name);
  return new Promise((resolve, reject) => {
    execFile(
      path,
      [...args],
      {
        env: toolEnvironment,
        maxBuffer: 64 * 1024 * 1024,
        ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
        ...(options.signal === undefined ? {} : { signal: options.signal }),
      },
      (error, stdout, stderr) => {
        const code = error === null ? 0 : typeof error.code === 'number' ? error.code : -1;
        if (errnoCode(error) === 'ABORT_ERR')
          reject(new AgentError('CANCELLED', `Cancelled while ${name} ran`, { cause: error }));
        else if (
          code === 0 ||
          (code > 0 && (options.allow === 'any' || options.allow?.includes(code) === true))
        )
          resolve({ code, stdout, stderr });
        else {
          const said = (stderr.trim() === '' ? stdout : stderr).trim().split('\n').slice(-3).join('; ');
          const how = typeof error?.signal === 'string' ? `signal ${error.signal}` : `exit code ${code}`;
          reject(
            new AgentError('MOUNT_FAILED', `${name} failed (${how}): ${said.slice(0, 600)}`, {
              cause: error,
            }),
          );
        }
      },
    );
  });
}
