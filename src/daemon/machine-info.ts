/** Describes the machine: the documents of `basicinfo`, `completeinfo` and `devices`. */
import { readFile } from 'node:fs/promises';
import { arch, cpus, hostname, release, totalmem } from 'node:os';
import { agentVersion } from '../base/version.ts';
import type { Device } from '../devices/device.ts';
import type { DeviceDocument } from '../api/devices.ts';
import type {
  BasicInfoDocument,
  BlockDeviceDocument,
  CompleteInfoDocument,
  LsbRelease,
} from '../api/info.ts';

export async function basicInfo(): Promise<BasicInfoDocument> {
  return {
    agent_version: agentVersion,
    hostname: hostname(),
    kernel: release(),
    lsb_release: lsbRelease(await readOsRelease()),
  };
}

export async function completeInfo(
  devices: readonly Device[],
  uptimeSeconds: number,
): Promise<CompleteInfoDocument> {
  const basic = await basicInfo();
  return {
    ...basic,
    os_name: basic.lsb_release.description || 'Linux',
    arch: machine(arch()),
    cpus: cpus().length,
    memory: totalmem(),
    dattod_uptime_seconds: uptimeSeconds,
    // The predecessor listed only devices with a filesystem UUID, so this list does the same.
    block_devices: devices.filter((device) => device.filesystem?.uuid !== undefined).map(blockDevice),
  };
}

export function describeDevice(device: Device): DeviceDocument {
  const { filesystem, partition } = device;
  return {
    path: device.path,
    kernel_name: device.kernelName,
    kind: device.kind,
    size: device.size,
    used: device.used ?? null,
    sector_size: device.sectorSize,
    read_only: device.readOnly,
    file_system: filesystem?.type ?? null,
    uuid: filesystem?.uuid ?? null,
    label: filesystem?.label ?? null,
    partition_uuid: partition?.uuid ?? null,
    partition_label: partition?.label ?? null,
    disk: partition?.disk ?? null,
    backing_file: device.backingFile ?? null,
    holders: [...device.holders],
    mounts: device.mounts.map(({ path, readOnly, root }) => ({ path, read_only: readOnly, root })),
    backup: { possible: device.backup.possible, how: device.backup.how },
  };
}

function blockDevice(device: Device): BlockDeviceDocument {
  return {
    uuid: device.filesystem?.uuid ?? '',
    real_path: device.path,
    device_size: device.size,
    block_size: device.filesystem?.blockSize ?? 0,
    file_system: device.filesystem?.type ?? '',
    mount_location: device.mounts[0]?.path ?? '',
    used_space: device.used ?? 0,
  };
}

/** Parses the text of `/etc/os-release` into names and values (os-release(5)). */
export function parseOsRelease(text: string): ReadonlyMap<string, string> {
  const values = new Map<string, string>();
  for (const line of text.split('\n')) {
    const match = /^\s*([A-Z][A-Z0-9_]*)=(.*)$/.exec(line);
    if (match?.[1] === undefined || match[2] === undefined) continue;
    const raw = match[2].trim();
    const quoted = /^(["'])(.*)\1$/.exec(raw);
    values.set(match[1], (quoted?.[2] ?? raw).replaceAll(/\\(["$`\\])/g, '$1'));
  }
  return values;
}

/** Returns the values that `lsb_release -a` would print, without that program. */
export function lsbRelease(values: ReadonlyMap<string, string>): LsbRelease {
  return {
    id: values.get('ID') ?? '',
    description: values.get('PRETTY_NAME') ?? '',
    release: values.get('VERSION_ID') ?? '',
    codename: values.get('VERSION_CODENAME') ?? '',
  };
}

async function readOsRelease(): Promise<ReadonlyMap<string, string>> {
  for (const path of ['/etc/os-release', '/usr/lib/os-release']) {
    try {
      return parseOsRelease(await readFile(path, 'utf8'));
    } catch {
      // Try the next path. A machine with neither file still has everything else to report.
    }
  }
  return new Map();
}

/** Translates Node's name of an architecture to the name that `uname -m` prints. */
function machine(name: string): string {
  return { x64: 'x86_64', arm64: 'aarch64' }[name] ?? name;
}
