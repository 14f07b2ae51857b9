/**
 * Where a server may listen. Nobody unauthenticated: a Unix socket is its owner's, loopback is this machine's,
 * and everything else is TLS with verified peers, or it is refused.
 */
import { lookup } from 'node:dns/promises';
import { AgentError } from '../../base/errors.ts';
import { isLoopback } from '../../base/loopback.ts';
import { DEFAULT_PORT } from '../protocol/constants.ts';

export interface TcpAddress {
  /** An IP address. */
  readonly host: string;
  /** 0 lets the kernel choose. */
  readonly port: number;
}

/** Reads `HOST:PORT`, `[IPV6]:PORT`, `HOST` or `:PORT`. Throws BAD_USAGE. */
export function parseListenAddress(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-f:.%\w]+)\]|([^:[\]]*))(?::(\d{1,5}))?$/i.exec(text);
  const port = Number(match?.[3] ?? DEFAULT_PORT);
  const host = match?.[1] ?? match?.[2];
  if (match === null || text === '' || host === undefined || port > 65535)
    throw new AgentError('BAD_USAGE', `"${text}" is no address to listen on`, {
      hint: 'write HOST:PORT, such as 127.0.0.1:10809 or [::1]:10809; port 0 takes any free one',
    });
  return { host: host === '' ? '127.0.0.1' : host, port };
}

/**
 * Finds the IP address and holds it to the rule above. Throws BAD_USAGE for an address that others can reach
 * without proving who they are.
 */
export async function checkedListenAddress(
  address: { host: string; port: number },
  peersAreVerified: boolean,
): Promise<TcpAddress> {
  const { host, port } = await resolveAddress(address);
  if (!peersAreVerified && !isLoopback(host))
    throw new AgentError(
      'BAD_USAGE',
      `${host} can be reached from other machines, and clients would not have to prove who they are`,
      {
        hint:
          'give --tls-certificates DIR with --tls-verify-peer, or --tls-psk FILE; or listen on 127.0.0.1 ' +
          'or --unix PATH and forward it over ssh',
      },
    );
  return { host, port };
}

/** Throws BAD_USAGE for a name without an address. */
export async function resolveAddress({
  host,
  port,
}: {
  readonly host: string;
  readonly port: number;
}): Promise<TcpAddress> {
  try {
    return { host: (await lookup(host)).address, port };
  } catch (error) {
    throw new AgentError('BAD_USAGE', `"${host}" has no IP address here`, { cause: error });
  }
}
