/** A target of the NBD client over a scripted server, for unit tests. */
import { openTarget } from '../../src/nbd/client/connect.ts';
import { runHandshake } from '../../src/nbd/client/handshake.ts';
import { negotiateExport } from '../../src/nbd/client/negotiate.ts';
import { type Script, ScriptedServer } from './scripted-nbd-server.ts';
import type { NbdTarget } from '../../src/nbd/client/target.ts';
import { transportOver } from '../../src/nbd/client/transport.ts';
import { parseNbdUri } from '../../src/nbd/client/uri.ts';

const address = parseNbdUri('nbd://scripted');

export async function openScripted(
  script: Script = {},
  options: { timeoutMs?: number; signal?: AbortSignal } = {},
): Promise<{ target: NbdTarget; server: ScriptedServer }> {
  const server = new ScriptedServer(script);
  const peer = { name: 'nbd://scripted/', exportName: '', tls: false };
  const { value, transport, takeRest } = await runHandshake(
    transportOver(server.client),
    negotiateExport(peer),
    { name: peer.name, timeoutMs: 5000 },
  );
  return { target: openTarget(address, transport, takeRest, value, options), server };
}

/** Returns a script that answers requests of this command with `answer`. */
export function scriptFor(command: number, answer: NonNullable<Script['request']>): Script {
  return {
    request: (request, payload, server) => request.type === command && answer(request, payload, server),
  };
}
