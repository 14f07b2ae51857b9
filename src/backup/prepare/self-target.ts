/**
 * Prevents a backup from writing to the device that it reads. A target that is a file or device is found by its path.
 * An NBD server of this machine is found by the files that it has open.
 */
import { stat } from 'node:fs/promises';
import { AgentError } from '../../base/errors.ts';
import { statIfExisting } from '../../block/write-errors.ts';
import type { Device } from '../../devices/device.ts';
import { type LocalAddress, filesServedAt } from '../../devices/local-server.ts';
import { isThisMachine } from '../../devices/own-address.ts';
import { type Stack, liesOn, refuseSelf, withLowers } from '../../devices/stacking.ts';
import { splitDeviceNumber } from '../../linux/device-uses.ts';
import { type TargetSpec, targetName } from '../copy/targets.ts';

/** To be called when the connection is open, since some servers open their image only then. Throws SAME_DEVICE. */
export async function refuseSelfTarget(target: TargetSpec, device: Device, stack: Stack): Promise<void> {
  if (target.kind === 'file') {
    if (device.kind !== 'file') return refuseSelf(stack, target.path, device.kernelName);
    const reason = await isSameFile(stack, target.path, device.path);
    if (reason === undefined) return;
    throw new AgentError('SAME_DEVICE', `Refusing to synchronize a file with itself: ${reason}`, {
      hint: 'choose another target',
    });
  }
  if (target.kind === 'vault') return;
  for (const { path, name, pid } of await servedAt(target, device.size))
    if ((await same(stack, path, device).catch(() => undefined)) !== undefined)
      throw new AgentError(
        'SAME_DEVICE',
        `Refusing to synchronize a device with itself: the server at ${targetName(target)} (process ${pid}) writes ` +
          `${name}, which lies on ${device.path}`,
        { hint: 'choose a target on another disk or machine' },
      );
}

/** Returns the files and devices of this machine that hold the data of the target. Empty for vaults. */
export async function targetPaths(target: TargetSpec, size: number): Promise<string[]> {
  if (target.kind === 'file') return [target.path];
  return target.kind === 'nbd' ? (await servedAt(target, size)).map(({ path }) => path) : [];
}

async function servedAt(
  target: Extract<TargetSpec, { kind: 'nbd' }>,
  size: number,
): ReturnType<typeof filesServedAt> {
  const local = await localAddress(target);
  return local === undefined ? [] : filesServedAt(local, size);
}

function same(stack: Stack, target: string, device: Device): Promise<string | undefined> {
  return device.kind === 'file'
    ? isSameFile(stack, target, device.path)
    : liesOn(stack, target, device.kernelName);
}

/** Returns why writing to `target` would change the image file `source`: it is that file, or a loop device over it. */
async function isSameFile(stack: Stack, target: string, source: string): Promise<string | undefined> {
  const [from, to] = await Promise.all([stat(source), statIfExisting(target)]);
  if (to === undefined) return undefined;
  if (!to.isBlockDevice())
    return to.dev === from.dev && to.ino === from.ino ? `${target} is ${source}` : undefined;
  const number = splitDeviceNumber(to.rdev);
  const node = stack.devices.find(({ major, minor }) => major === number.major && minor === number.minor);
  if (node === undefined) return undefined;
  const file = splitDeviceNumber(from.dev);
  for (const name of withLowers(stack, node.name)) {
    const backing = stack.backings.get(name);
    if (backing?.inode === from.ino && backing.major === file.major && backing.minor === file.minor)
      return `${source} is the file behind ${target}`;
  }
  return undefined;
}

/** Does the same for a vault in a directory. Throws SAME_DEVICE. */
export async function refuseSelfVault(directory: string, device: Device, stack: Stack): Promise<void> {
  if (device.kind === 'file') return;
  const reason = await liesOn(stack, directory, device.kernelName);
  if (reason === undefined) return;
  throw new AgentError(
    'SAME_DEVICE',
    `The vault ${directory} lies on ${device.path}, which is to be backed up: ${reason}`,
    {
      hint: 'a vault that burns down with its device is none: choose one on another disk or machine',
    },
  );
}

async function localAddress(target: Extract<TargetSpec, { kind: 'nbd' }>): Promise<LocalAddress | undefined> {
  const { transport } = target.address;
  if (transport.kind === 'unix') return transport;
  const { host, port } = transport;
  return (await isThisMachine(host)) ? { kind: 'tcp', port } : undefined;
}
