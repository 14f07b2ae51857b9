/** The settings that dattod is started with. Every path can be set, so that two daemons can run side by side. */
export interface DaemonSettings {
  readonly foreground: boolean;
  /** Removes everything that tracking left in the kernel, instead of running. */
  readonly removeTracking: boolean;
  readonly socket: string;
  readonly pidFile: string;
  /** `-` for standard error. */
  readonly logFile: string;
  readonly logLevel: string;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  /** Directory on a bpffs that keeps tracking active while the daemon does not run. */
  readonly pinDirectory: string;
  readonly config: string;
  /** The user named the configuration file, so it must exist. */
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
