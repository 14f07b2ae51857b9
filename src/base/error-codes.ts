/**
 * The one table of error codes. `docs/errors.md` lists the same codes, and a test checks that both lists are equal.
 * Branch on a code, never on an error's text.
 *
 * `exit` is the exit code of `dattocli` (docs/cli.md): 1 failed, 2 wrong usage, 3 no daemon, 4 cancelled.
 * `retry`: the same call may succeed later, even if the caller changes nothing.
 */
export interface ErrorKind {
  readonly exit: 1 | 2 | 3 | 4;
  readonly retry?: true;
  readonly summary: string;
}

const table = {
  // the request of the caller
  BAD_USAGE: { exit: 2, summary: 'The command line or the request is not well formed.' },
  NO_DEVICES: { exit: 2, summary: 'The request for a backup names no device.' },
  NOT_SUPPORTED: { exit: 2, summary: 'This program, kernel or peer does not offer this.' },

  NOT_ENOUGH_MEMORY: {
    exit: 1,
    retry: true,
    summary: 'The machine, or the control group of the daemon, has too little memory for the job.',
  },

  // devices and filesystems
  DEVICE_NOT_FOUND: { exit: 1, summary: 'No block device has this UUID, path, mount point or label.' },
  DEVICE_AMBIGUOUS: { exit: 1, summary: 'More than one block device has this name.' },
  DEVICE_BUSY: { exit: 1, summary: 'The device is being backed up by another job, or is in use.' },
  DEVICE_GONE: { exit: 1, summary: 'The device vanished or changed its size while it was being read.' },
  DEVICE_READ_ERROR: { exit: 1, summary: 'A part of the device could not be read (bad sectors).' },
  SAME_DEVICE: { exit: 1, summary: 'The target lies on the device that would be backed up.' },
  SOURCE_IS_BACKUP: { exit: 1, summary: 'The device shows a recovery point, so it is not backed up.' },
  FILESYSTEM_UNREADABLE: { exit: 1, summary: 'The filesystem metadata could not be read or is damaged.' },

  // tracking
  CHAIN_IN_DOUBT: {
    exit: 1,
    summary: 'An incremental backup is not possible, and a fallback was not allowed.',
  },
  CHAIN_NOT_FOUND: { exit: 1, summary: 'There is no record of this device at this target.' },
  EPOCH_ENDED: {
    exit: 1,
    summary: 'The tracker may have missed writes, so its map of changed blocks is possibly incomplete.',
  },

  // freezing
  FREEZE_FAILED: { exit: 1, summary: 'A filesystem could not be frozen.' },
  FREEZE_TIMEOUT: { exit: 1, summary: 'The filesystem was thawed before the last pass was complete.' },
  FREEZE_TOO_LONG: {
    exit: 1,
    summary: 'The freeze would be longer than allowed, or would need more memory than allowed.',
  },
  ALREADY_FROZEN: { exit: 1, summary: 'Another program has frozen the filesystem.' },
  SNAPSHOT_FAILED: { exit: 1, summary: 'A temporary LVM snapshot could not be taken, read or removed.' },
  SNAPSHOT_OVERFLOW: { exit: 1, summary: 'More was written than the temporary LVM snapshot could hold.' },
  HOOK_FAILED: { exit: 1, summary: 'A pre-freeze or post-thaw hook failed.' },

  // targets
  TARGET_TOO_SMALL: { exit: 1, summary: 'The target is smaller than the device.' },
  TARGET_OCCUPIED: { exit: 1, summary: 'The destination of a restore already holds data.' },
  TARGET_READ_ONLY: { exit: 1, summary: 'The target cannot be written.' },
  TARGET_UNREACHABLE: { exit: 1, retry: true, summary: 'No server answers at the address of the target.' },
  TARGET_FULL: { exit: 1, summary: 'The receiver has no room left.' },
  TARGET_WRITE_ERROR: { exit: 1, summary: 'The target refused or failed a write.' },
  TARGET_MISMATCH: { exit: 1, summary: 'The target returns other data than was written to it.' },
  BAD_TARGET: { exit: 2, summary: 'The address of a target is not well formed.' },

  // the stores of vaults
  VAULT_NOT_FOUND: {
    exit: 1,
    summary: 'No vault is there: the directory, the bucket or its mark is missing.',
  },
  VAULT_OBJECT_MISSING: { exit: 1, summary: 'The store of the vault has no object of this name.' },
  VAULT_OBJECT_EXISTS: {
    exit: 1,
    summary: 'The store has an object of this name already; it was not replaced.',
  },
  VAULT_UNREACHABLE: { exit: 1, retry: true, summary: 'The store of the vault does not answer for now.' },
  VAULT_FULL: { exit: 1, summary: 'The store of the vault has no room left, or a quota is reached.' },
  VAULT_READ_ONLY: { exit: 1, summary: 'The store of the vault cannot be written.' },
  VAULT_DENIED: {
    exit: 1,
    summary: 'The store of the vault refuses these credentials, or does not allow them this operation.',
  },
  VAULT_TLS: {
    exit: 1,
    summary: 'The store of the vault cannot be trusted: no TLS, or an unknown certificate.',
  },
  VAULT_STORE_ERROR: { exit: 1, summary: 'The store of the vault failed, or gave an unexpected answer.' },

  // the content of vaults
  VAULT_EXISTS: { exit: 1, summary: 'A vault, or the rest of one, is there already.' },
  VAULT_EXCHANGED: {
    exit: 1,
    summary: 'The vault at this place is not the one that this machine saw there before.',
  },
  VAULT_TOO_NEW: { exit: 1, summary: 'The format of the vault is newer than this program supports.' },
  VAULT_NO_KEY: { exit: 1, summary: 'No key was given, or the vault has no key of this kind or name.' },
  VAULT_WRONG_KEY: { exit: 1, summary: 'The passphrase, key file or recovery code does not open the vault.' },
  VAULT_LAST_KEY: { exit: 1, summary: 'The last key of a vault cannot be removed.' },
  VAULT_DAMAGED: {
    exit: 1,
    summary: 'An object of the vault does not hold the data that was written to it.',
  },
  VAULT_CHUNK_LOST: { exit: 1, summary: 'No pack of the vault holds a chunk or page that a point needs.' },
  VAULT_INDEX_DAMAGED: {
    exit: 1,
    retry: true,
    summary: 'The local index of the vault was damaged. The next command builds a new one.',
  },
  VAULT_LOCKED: { exit: 1, retry: true, summary: 'Another process prunes or repairs the vault.' },
  VAULT_POINT_WITHDRAWN: {
    exit: 1,
    retry: true,
    summary:
      'The new recovery point was withdrawn, because data that it was built on was pruned in the meantime.',
  },
  POINT_NOT_FOUND: { exit: 1, summary: 'The vault has no such recovery point.' },
  POINT_AMBIGUOUS: { exit: 1, summary: 'More than one recovery point, or key, has this name.' },
  POINT_PROTECTED: { exit: 1, summary: 'The recovery point is protected, so it cannot be forgotten.' },

  // mounts of recovery points
  MOUNT_FAILED: { exit: 1, summary: 'A recovery point could not be mounted or attached.' },
  MOUNT_NOT_FOUND: { exit: 1, summary: 'This program has mounted nothing there.' },

  // NBD
  NBD_CONNECTION_LOST: { exit: 1, retry: true, summary: 'The NBD connection was lost or timed out.' },
  NBD_PROTOCOL: { exit: 1, summary: 'The NBD peer violated the protocol.' },
  NBD_EXPORT_UNKNOWN: { exit: 1, summary: 'The NBD server has no export of this name.' },
  NBD_REFUSED: { exit: 1, summary: 'The NBD server refused an option or the connection.' },
  NBD_SERVER_ERROR: { exit: 1, summary: 'The NBD server answered a request with an error.' },
  NBD_TLS: { exit: 1, summary: 'TLS was required, refused, or the peer could not be verified.' },

  // jobs and the daemon
  JOB_NOT_FOUND: { exit: 1, summary: 'No job has this UUID.' },
  JOB_NOT_RUNNING: { exit: 1, summary: 'The job is not running.' },
  JOB_INTERRUPTED: { exit: 1, summary: 'The daemon ended while the job was running.' },
  CANCELLED: { exit: 4, summary: 'The work was cancelled.' },
  DAEMON_UNREACHABLE: { exit: 3, summary: 'The daemon does not answer on its socket.' },
  DAEMON_ALREADY_RUNNING: {
    exit: 1,
    summary: 'Another daemon holds the pid file, the state directory or the pins.',
  },
  NO_PERMISSION: { exit: 1, summary: 'This needs root.' },

  // files and everything else
  UNSAFE_FILE: { exit: 1, summary: 'Other users may read a secret, or change a configuration or a hook.' },
  NO_ANSWER: {
    exit: 1,
    retry: true,
    summary: 'A filesystem or disk did not answer in time: it hangs, or its server is down.',
  },
  FILE_EXISTS: { exit: 1, summary: 'A file exists already and is not overwritten.' },
  FILE_ERROR: { exit: 1, summary: 'A file could not be opened, read or written.' },
  INTERNAL: { exit: 1, summary: 'A defect of this program.' },
} as const satisfies Record<string, ErrorKind>;

export type ErrorCode = keyof typeof table;

export const errorKinds: Readonly<Record<ErrorCode, ErrorKind>> = table;
