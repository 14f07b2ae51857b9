/** What a dattod is started with: every path settable, so that two daemons run side by side. */
export interface DaemonSettings {
  readonly foreground: boolean;
  /** Instead of running: what tracking left in the kernel is removed. */
  readonly removeTracking: boolean;
  readonly socket: string;
  readonly pidFile: string;
  /** `-` for standard error. */
  readonly logFile: string;
  readonly logLevel: string;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  /** On a bpffs: what tracks on while the daemon does not run. */
  readonly pinDirectory: string;
  readonly config: string;
  /** The configuration file was asked for by name, so it has to be there. */
  readonly configRequired: boolean;
}

export const logLevels = ['trace', 'debug', 'info', 'warn', 'error'] as const;

export const defaultSettings: DaemonSettings = {
  foreground: false,
  removeTracking: false,
  socket: '/run/dattod.sock',
  pidFile: '/run/dattod.pid',
  logFile: '/var/log/dattod.log',
  logLevel: 'info',
  stateDirectory: '/var/lib/dattod',
  runDirectory: '/run/dattod',
  pinDirectory: '/sys/fs/bpf/dattod',
  config: '/etc/dattod/config.json',
  configRequired: false,
};
