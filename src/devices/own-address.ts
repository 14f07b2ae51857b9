/** Whether a host is this machine: a name with any of its addresses, or an address in any notation. */
import { lookup } from 'node:dns/promises';
import { BlockList, isIP } from 'node:net';
import { networkInterfaces } from 'node:os';

/** Looks up names and addresses. A test passes its own. */
export interface Network {
  /** Returns all addresses of the name. */
  readonly resolve: (host: string) => Promise<readonly string[]>;
  /** Returns the addresses of all interfaces. */
  readonly own: () => readonly string[];
}

const machine: Network = {
  resolve: async (host) => (await lookup(host, { all: true })).map(({ address }) => address),
  own: () => Object.values(networkInterfaces()).flatMap((each) => each?.map(({ address }) => address) ?? []),
};

/**
 * True if one of the host's addresses belongs to this machine. Also true if the host cannot be resolved, because then
 * it is not known where a connection leads.
 */
export async function isThisMachine(host: string, network: Network = machine): Promise<boolean> {
  const here = new BlockList();
  here.addSubnet('127.0.0.0', 8, 'ipv4');
  here.addAddress('::1', 'ipv6');
  // A connection to "any address" goes to this machine.
  here.addSubnet('0.0.0.0', 8, 'ipv4');
  here.addAddress('::', 'ipv6');
  for (const address of network.own()) {
    const family = familyOf(address);
    if (family !== undefined) here.addAddress(withoutZone(address), family);
  }
  const addresses = isIP(withoutZone(host)) === 0 ? await network.resolve(host).catch(() => []) : [host];
  if (addresses.length === 0) return true;
  return addresses.some((address) => {
    const family = familyOf(address);
    // An IPv4 address that is mapped into IPv6 is checked as IPv4.
    return family !== undefined && here.check(withoutZone(address), family);
  });
}

function familyOf(address: string): 'ipv4' | 'ipv6' | undefined {
  const version = isIP(withoutZone(address));
  return version === 4 ? 'ipv4' : version === 6 ? 'ipv6' : undefined;
}

/** Removes the interface from an address such as `fe80::1%eth0`. */
function withoutZone(address: string): string {
  return address.replace(/%.*$/, '');
}
