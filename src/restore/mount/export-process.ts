/** Starts the process that serves an image. The process continues to run after the caller ends. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync, closeSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { entryPath, nodeFlags } from '../../base/entry.ts';
import { AgentError, type ErrorDocument } from '../../base/errors.ts';
import { identifyProcess, type ProcessIdentity } from '../../linux/process.ts';
import type { ExportOptions } from '../export/export-image.ts';
import { needTool, toolEnvironment } from './tools.ts';

export type ExportOrder = Omit<ExportOptions, 'log'>;
export type ExportAnswer = { readonly uri: string } | { readonly error: ErrorDocument };

export interface ExportProcess {
  readonly identity: ProcessIdentity;
  readonly uri: string;
}

/** Time limit of the start. Updating the index may take long; access to the vault has its own time limits. */
const startMs = 120_000;

export interface ExportProcessOptions {
  /** File for the log of the process. */
  readonly logFile: string;
  /** Gives the process its own mount namespace, so that later mounts hide nothing from it. */
  readonly ownMounts: boolean;
}

/** Returns when the process serves the image. Calls `started` before that, so that the process can be recorded. */
export async function startExportProcess(
  order: ExportOrder,
  { logFile, ownMounts }: ExportProcessOptions,
  started: (identity: ProcessIdentity) => Promise<void>,
  signal?: AbortSignal,
): Promise<ExportProcess> {
  // unshare(1) becomes the program under the same pid.
  const own = ownMounts ? [await needTool('unshare'), '--mount', '--propagation', 'private', '--'] : [];
  const log = openSync(logFile, 'a', 0o600);
  const entry = fileURLToPath(entryPath(import.meta.url, './export-main.ts'));
  const [program, ...args] = [...own, process.execPath, ...nodeFlags, entry];
  const child = spawn(program, args, {
    cwd: '/',
    detached: true,
    // The environment may hold the credentials of a bucket.
    env: { ...process.env, ...toolEnvironment, MALLOC_ARENA_MAX: '2' },
    stdio: ['pipe', 'pipe', log],
  });
  closeSync(log);
  const failed = once(child, 'error').then(([cause]: unknown[]) => {
    throw new AgentError('MOUNT_FAILED', `The image server for the mount did not start: ${String(cause)}`, {
      cause,
    });
  });
  failed.catch(() => undefined);
  const kill = (): void => void child.kill('SIGKILL');
  try {
    const identity = child.pid === undefined ? undefined : await identifyProcess(child.pid);
    if (identity === undefined) throw await failed.catch((error: unknown) => error);
    await started(identity);
    const { stdin, stdout } = child;
    if (stdin === null || stdout === null) throw new Error('the child process has no pipes');
    stdin.on('error', () => undefined);
    stdin.end(JSON.stringify(order));
    const answer = await Promise.race([firstLine(stdout), failed, late(signal)]);
    if (answer === undefined)
      throw new AgentError('MOUNT_FAILED', 'The image server for the mount ended at its start', {
        hint: `see ${logFile}`,
      });
    const parsed = JSON.parse(answer) as ExportAnswer;
    if ('error' in parsed) throw AgentError.fromDocument(parsed.error);
    child.removeAllListeners();
    stdout.destroy();
    child.unref();
    return { identity, uri: parsed.uri };
  } catch (error) {
    kill();
    throw error;
  }
}

async function firstLine(stream: AsyncIterable<unknown>): Promise<string | undefined> {
  let said = '';
  for await (const chunk of stream) {
    said += String(chunk);
    const end = said.indexOf('\n');
    if (end >= 0) return said.slice(0, end);
  }
  return undefined;
}

async function late(signal: AbortSignal | undefined): Promise<never> {
  const timeout = AbortSignal.timeout(startMs);
  const either = signal === undefined ? timeout : AbortSignal.any([timeout, signal]);
  if (!either.aborted) await once(either, 'abort');
  if (signal?.aborted === true) throw new AgentError('CANCELLED', 'Cancelled while mounting');
  throw new AgentError(
    'MOUNT_FAILED',
    `The image server for the mount was not ready within ${startMs / 1000} s`,
  );
}
