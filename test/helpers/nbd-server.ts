/**
 * Starts the reference nbd-server (Debian package nbd-server) on a free loopback port. It uses either a
 * configuration file, or the plain form that people type, `nbd-server PORT FILE`. The plain form detaches,
 * reads Debian's /etc/nbd-server/config, and runs as the user `nbd`.
 *
 *     const server = await startNbdServer({ exports: { disk: { exportname: image, flush: true } } });
 *     try { … `${server.uri}/disk` … } finally { await server.stop(); }
 */
import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import {
  type NbdServerProcess,
  accepts,
  endProcess,
  freePort,
  readPid,
  serverProcess,
  spawnServer,
  temporaryDirectory,
} from './nbd-process.ts';

type Setting = string | number | boolean;

export interface NbdServerConfig {
  /** Sections of the configuration, by export name; `exportname` is the image file. */
  readonly exports: Readonly<Record<string, Readonly<Record<string, Setting>>>>;
  /** Further lines of `[generic]`; `user: 'nbd'` runs it as Debian's user does. */
  readonly generic?: Readonly<Record<string, Setting>>;
}

/** Runs as the user that runs the test, unless `generic.user` names another. */
export async function startNbdServer(config: NbdServerConfig): Promise<NbdServerProcess> {
  return start(async (directory, port, pidFile) => {
    const generic = { listenaddr: '127.0.0.1', port, allowlist: true, ...config.generic };
    const lines = section('generic', generic);
    for (const [name, settings] of Object.entries(config.exports)) lines.push(...section(name, settings));
    const file = join(directory, 'config');
    writeFileSync(file, lines.join('\n') + '\n');
    // Without `-d`, because that serves a single connection and ends.
    const server = spawnServer('nbd-server', ['-C', file, '-p', pidFile]);
    await server.ready(async () => readPid(pidFile) !== undefined && (await accepts(port)));
    return { pid: readPid(pidFile)!, stderr: server.stderr };
  });
}

/** Runs `nbd-server PORT FILE [options]`, as typed on Debian. */
export async function startPlainNbdServer(
  file: string,
  options: { readonly parameters?: readonly string[]; readonly port?: number } = {},
): Promise<NbdServerProcess> {
  return start(async (_directory, port, pidFile) => {
    const server = spawnServer('nbd-server', [
      `127.0.0.1@${port}`,
      file,
      ...(options.parameters ?? []),
      '-p',
      pidFile,
    ]);
    await server.ready(async () => readPid(pidFile) !== undefined && (await accepts(port)));
    return { pid: readPid(pidFile)!, stderr: server.stderr };
  }, options.port);
}

async function start(
  launch: (
    directory: string,
    port: number,
    pidFile: string,
  ) => Promise<{ pid: number; stderr: () => string }>,
  wantedPort?: number,
): Promise<NbdServerProcess> {
  const directory = temporaryDirectory('nbd-server');
  const pidFile = join(directory, 'pid');
  try {
    // The server may write its pid file after it has changed its user.
    chmodSync(directory, 0o777);
    const port = wantedPort ?? (await freePort());
    const { pid, stderr } = await launch(directory, port, pidFile);
    return serverProcess({ port, pid, directory, stderr });
  } catch (error) {
    const pid = readPid(pidFile);
    if (pid !== undefined) await endProcess(pid, 'SIGTERM');
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}

function section(name: string, settings: Readonly<Record<string, Setting>>): string[] {
  return [`[${name}]`, ...Object.entries(settings).map(([key, value]) => `  ${key} = ${String(value)}`)];
}
