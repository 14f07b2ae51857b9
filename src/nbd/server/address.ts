/**
 * The addresses on which a server may listen. A Unix socket is limited to its owner, and loopback to this machine. Any other
 * address is refused without TLS with verified peers.
 */
import { lookup } from 'node:dns/promises';
import { AgentError } from '../../base/errors.ts';
import { isLoopback } from '../../base/loopback.ts';
import { DEFAULT_PORT } from '../protocol/constants.ts';

export interface TcpAddress {
  /** An IP address. */
  readonly host: string;
  /** 0: the kernel chooses the port. */
  readonly port: number;
}

/** Parses `HOST:PORT`, `[IPV6]:PORT`, `HOST` or `:PORT`. Throws BAD_USAGE. */
export function parseListenAddress(text: string): { host: string; port: number } {
  const match = /^(?:\[([0-9a-f:.%\w]+)\]|([^:[\]]*))(?::(\d{1,5}))?$/i.exec(text);
  const port = Number(match?.[3] ?? DEFAULT_PORT);
  const host = match?.[1] ?? match?.[2];
  if (match === null || text === '' || host === undefined || port > 65535)
    throw new AgentError('BAD_USAGE', `"${text}" is not an address to listen on`, {
      hint: 'give HOST:PORT, such as 127.0.0.1:10809 or [::1]:10809; port 0 takes any free port',
    });
  return { host: host === '' ? '127.0.0.1' : host, port };
}

/**
 * Resolves the IP address. Throws BAD_USAGE for an address that other machines can reach if clients are not authenticated.
 */
export async function checkedListenAddress(
  address: { host: string; port: number },
  peersAreVerified: boolean,
): Promise<TcpAddress> {
  const { host, port } = await resolveAddress(address);
  if (!peersAreVerified && !isLoopback(host))
    throw new AgentError(
      'BAD_USAGE',
      `Other machines can reach ${host}, but clients would not be authenticated`,
      {
        hint:
          'give --tls-certificates DIR with --tls-verify-peer, or --tls-psk FILE; or listen on 127.0.0.1 ' +
          'or --unix PATH and forward it with ssh',
      },
    );
  return { host, port };
}

/** Resolves the host name. Throws BAD_USAGE for a name without an address. */
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
    throw new AgentError('BAD_USAGE', `"${host}" cannot be resolved to an IP address`, { cause: error });
  }
}
