/**
 * Copies owner, mode, times and extended attributes of a directory from one descriptor to another (fsetxattr(2),
 * futimens(3)). Node has no calls for extended attributes. ACLs and capabilities are extended attributes.
 */
import { type BigIntStats, fchmodSync, fchownSync, fstatSync } from 'node:fs';
import { addressOf, checked, declare, SystemCallError } from './libc.ts';

const flistxattr = declare<[fd: number, list: bigint, size: number]>('flistxattr', 'int64', [
  'int',
  'uint64',
  'uint64',
]);
const fgetxattr = declare<[fd: number, name: string, value: bigint, size: number]>('fgetxattr', 'int64', [
  'int',
  'str',
  'uint64',
  'uint64',
]);
const fsetxattr = declare<[fd: number, name: string, value: bigint, size: number, flags: number]>(
  'fsetxattr',
  'int',
  ['int', 'str', 'uint64', 'uint64', 'int'],
);
const fremovexattr = declare<[fd: number, name: string]>('fremovexattr', 'int', ['int', 'str']);
const futimens = declare<[fd: number, times: bigint]>('futimens', 'int', ['int', 'uint64']);

/** XATTR_SIZE_MAX and XATTR_LIST_MAX of include/uapi/linux/limits.h. */
const most = 65536;
const acls = ['system.posix_acl_access', 'system.posix_acl_default'];

export interface Attributes {
  readonly node: BigIntStats;
  /** Extended attributes by name. */
  readonly extended: ReadonlyMap<string, Buffer>;
}

/** Reads the attributes of an open directory. Throws SystemCallErrors. */
export function readAttributes(fd: number): Attributes {
  const extended = new Map<string, Buffer>();
  for (const name of listNames(fd)) {
    const value = Buffer.alloc(most);
    const length = checked(fgetxattr, [fd, name, addressOf(value), most], 'fgetxattr', name);
    extended.set(name, value.subarray(0, length));
  }
  return { node: fstatSync(fd, { bigint: true }), extended };
}

/** Writes the attributes. Removes ACLs that are not in `extended`; others stay. Throws SystemCallErrors. */
export function writeAttributes(fd: number, { node, extended }: Attributes): void {
  fchownSync(fd, Number(node.uid), Number(node.gid));
  for (const name of acls) if (!extended.has(name)) removeAttribute(fd, name);
  for (const [name, value] of extended)
    checked(fsetxattr, [fd, name, addressOf(value), value.length, 0], 'fsetxattr', name);
  fchmodSync(fd, Number(node.mode) & 0o7777);
  const times = Buffer.alloc(32);
  for (const [at, time] of [node.atimeNs, node.mtimeNs].entries()) {
    const rest = ((time % 1_000_000_000n) + 1_000_000_000n) % 1_000_000_000n;
    times.writeBigInt64LE((time - rest) / 1_000_000_000n, at * 16);
    times.writeBigInt64LE(rest, at * 16 + 8);
  }
  checked(futimens, [fd, addressOf(times)], 'futimens');
}

function listNames(fd: number): string[] {
  const list = Buffer.alloc(most);
  try {
    const length = checked(flistxattr, [fd, addressOf(list), most], 'flistxattr');
    return list
      .toString('latin1', 0, length)
      .split('\0')
      .filter((name) => name !== '');
  } catch (error) {
    if (isCode(error, 'EOPNOTSUPP', 'ENOTSUP')) return [];
    throw error;
  }
}

function removeAttribute(fd: number, name: string): void {
  try {
    checked(fremovexattr, [fd, name], 'fremovexattr', name);
  } catch (error) {
    if (!isCode(error, 'ENODATA', 'EOPNOTSUPP', 'ENOTSUP')) throw error;
  }
}

function isCode(error: unknown, ...codes: readonly string[]): boolean {
  return error instanceof SystemCallError && codes.includes(error.code);
}
