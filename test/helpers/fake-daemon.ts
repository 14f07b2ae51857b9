/** Runs a daemon in this process, with the fake engine, on a socket in a temporary directory. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Daemon, createDaemon, type DaemonOptions } from '../../src/daemon/daemon.ts';
import { defaultConfig } from '../../src/daemon/config.ts';
import { defaultSettings } from '../../src/daemon/settings.ts';
import { fakeDependencies } from './fake-engine.ts';

export interface FakeDaemon {
  readonly socket: string;
  readonly directory: string;
  readonly daemon: Daemon;
  stop(): Promise<void>;
}

export async function startFakeDaemon(tickMs = 5, options: DaemonOptions = {}): Promise<FakeDaemon> {
  const directory = mkdtempSync(join(tmpdir(), 'fake-daemon-'));
  const socket = join(directory, 'sock');
  const daemon = await createDaemon(
    fakeDependencies(tickMs),
    {
      ...defaultSettings,
      socket,
      pidFile: join(directory, 'pid'),
      logFile: join(directory, 'log'),
      stateDirectory: join(directory, 'state'),
      runDirectory: join(directory, 'run'),
    },
    defaultConfig,
    options,
  );
  return {
    socket,
    directory,
    daemon,
    stop: async () => {
      await daemon.stop('the test is over');
      rmSync(directory, { recursive: true, force: true });
    },
  };
}
