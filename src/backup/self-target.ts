/**
 * Keeps a backup from going onto the device that it reads: by path where the target is a file or device, and
 * through the server's open files where it is an NBD server of this machine.
 */
import { networkInterfaces } from 'node:os';
import { AgentError } from '../base/errors.ts';
import type { Device } from '../devices/device.ts';
import { type LocalAddress, filesServedAt } from '../devices/local-server.ts';
import { type Stack, liesOn, refuseSelf } from '../devices/stacking.ts';
import { type TargetSpec, targetName } from './targets.ts';

/** To be called when the connection stands, since some servers open their image only then. Throws SAME_DEVICE. */
export async function refuseSelfTarget(target: TargetSpec, device: Device, stack: Stack): Promise<void> {
  if (target.kind === 'file') return refuseSelf(stack, target.path, device.kernelName);
  const local = localAddress(target);
  if (local === undefined) return;
  for (const { path, name, pid } of await filesServedAt(local, device.size))
    if ((await liesOn(stack, path, device.kernelName).catch(() => undefined)) !== undefined)
      throw new AgentError(
        'SAME_DEVICE',
        `Refusing to synchronize a device with itself: the server at ${targetName(target)} (process ${pid}) writes ` +
          `${name}, which lies on ${device.path}`,
        { hint: 'choose a target on another disk or machine' },
      );
}

function localAddress(target: Extract<TargetSpec, { kind: 'nbd' }>): LocalAddress | undefined {
  const { transport } = target.address;
  if (transport.kind === 'unix') return transport;
  const own = Object.values(networkInterfaces()).flatMap((each) => each?.map(({ address }) => address) ?? []);
  const { host, port } = transport;
  return host === 'localhost' || host.startsWith('127.') || own.includes(host)
    ? { kind: 'tcp', port }
    : undefined;
}
