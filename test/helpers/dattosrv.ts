/**
 * Starts dattosrv over a temporary directory of images, on a Unix socket or a free loopback port, and waits
 * for its ready line.
 *
 *     const server = await startDattosrv(t, ['--create']);
 *     await exec('nbdcopy', [image, server.uriOf('disk@1M')]);
 *
 * The server is stopped, and its directory removed, at the end of the test.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atEnd, type EndingTest } from './cleanup.ts';
import { waitFor } from './nbd-process.ts';
import { programCommand } from './programs.ts';

export interface DattosrvOptions {
  /** Directory of the images. Default: a new directory. */
  readonly directory?: string;
  /** The program to run. Default: that of the build or of the sources (programs.ts). */
  readonly entry?: string;
  /** The Unix socket of an earlier server, to listen on it again. */
  readonly socket?: string;
  /** Loopback TCP instead of a Unix socket. */
  readonly tcp?: boolean;
  /** Records these system calls of the server in a file, by strace: `fdatasync,fallocate`. */
  readonly trace?: string;
  /** Further parameters of the URI: `tls-psk-file=…`. */
  readonly uriParameters?: string;
  /** User of the URI with its `@`: `alice@`. */
  readonly user?: string;
}

export interface Dattosrv {
  /** The address as the ready line gives it. */
  readonly listening: string;
  readonly pid: number;
  /** Directory of the images. */
  readonly directory: string;
  /** Loopback port; 0 on a Unix socket. */
  readonly port: number;
  readonly socket: string;
  /** The file to which `trace` writes. */
  readonly traceFile: string;
  uriOf(name: string): string;
  stderr(): string;
  /** Sends SIGTERM; resolves with the exit code. Safe to call twice. */
  stop(): Promise<number | null>;
  /** Sends SIGKILL. */
  kill(): Promise<void>;
}

export async function startDattosrv(
  t: EndingTest,
  parameters: readonly string[] = [],
  options: DattosrvOptions = {},
): Promise<Dattosrv> {
  const scratch = mkdtempSync(join(tmpdir(), 'dattosrv-'));
  const images = options.directory ?? mkdtempSync(join(tmpdir(), 'dattosrv-images-'));
  const socket = options.socket ?? join(scratch, 'socket');
  const traceFile = join(scratch, 'trace');
  const where = options.tcp === true ? ['--listen', '127.0.0.1:0'] : ['--unix', socket];
  const command: string[] = [
    ...programCommand(options.entry ?? 'src/bin/dattosrv.ts'),
    '--json',
    ...where,
    ...parameters,
    images,
  ];
  if (options.trace !== undefined)
    command.unshift('strace', '-f', '-qq', '-e', `trace=${options.trace}`, '-o', traceFile);
  const child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()));
  const ended = once(child, 'close').then(() => child.exitCode);
  const end = async (signal: 'SIGTERM' | 'SIGKILL'): Promise<number | null> => {
    if (child.exitCode === null && child.signalCode === null) {
      // strace does not pass on the signals that it gets, so they go to its child.
      if (options.trace === undefined) child.kill(signal);
      else process.kill(firstChildOf(child.pid!), signal);
    }
    return ended;
  };
  atEnd(t, async () => {
    await end('SIGTERM');
    rmSync(scratch, { recursive: true, force: true });
    if (options.directory === undefined) rmSync(images, { recursive: true, force: true });
  });
  await waitFor(() => {
    if (child.exitCode !== null) throw new Error(`dattosrv ended at its start: ${stderr}`);
    return stdout.includes('\n');
  }, `ready line of dattosrv`);
  const { listening } = JSON.parse(stdout) as { listening: string };
  const user = options.user ?? '';
  return {
    listening,
    pid: options.trace === undefined ? child.pid! : firstChildOf(child.pid!),
    directory: images,
    port: Number(/:(\d+)$/.exec(listening)?.[1] ?? 0),
    socket,
    traceFile,
    uriOf: (name) => {
      const query = [options.tcp === true ? '' : `socket=${socket}`, options.uriParameters ?? ''];
      const tail = query.filter((part) => part !== '').join('&');
      const base = listening.replace(/\?.*/, '').replace('://', `://${user}`);
      return `${base}${base.endsWith('/') ? '' : '/'}${name}${tail === '' ? '' : `?${tail}`}`;
    },
    stderr: () => stderr,
    stop: () => end('SIGTERM'),
    kill: async () => {
      await end('SIGKILL');
    },
  };
}

function firstChildOf(pid: number): number {
  return Number(readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0]);
}
