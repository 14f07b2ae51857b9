/** Making a server listen: a Unix socket is its owner's alone from its first moment, and nothing that lies there is touched. */
import { once } from 'node:events';
import { lstatSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { AgentError, errnoCode } from '../../base/errors.ts';
import type { TcpAddress } from './address.ts';

/** Throws FILE_EXISTS where something else lies at the path, FILE_ERROR where the address cannot be had. */
export async function listenOn(server: Server, where: TcpAddress | { readonly path: string }): Promise<void> {
  const name = 'path' in where ? where.path : `${where.host}:${where.port}`;
  try {
    if ('path' in where) await makeRoom(where.path);
    const listening = once(server, 'listening');
    // The socket is made before `listen` returns.
    const mask = process.umask(0o177);
    try {
      server.listen(where);
    } finally {
      process.umask(mask);
    }
    await listening;
  } catch (error) {
    server.close();
    if (error instanceof AgentError) throw error;
    throw new AgentError('FILE_ERROR', `cannot listen on ${name}: ${errnoCode(error) ?? String(error)}`, {
      hint: errnoCode(error) === 'EADDRINUSE' ? 'another server runs there; choose another address' : '',
      cause: error,
    });
  }
}

/** A socket that nobody listens on any more is removed; anything else that lies there is somebody's. */
async function makeRoom(path: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) return;
  if (!found.isSocket())
    throw new AgentError('FILE_EXISTS', `cannot listen on ${path}: a file that is no socket lies there`, {
      hint: 'choose another path',
    });
  const probe = connect(path);
  try {
    await once(probe, 'connect');
  } catch (error) {
    if (errnoCode(error) !== 'ECONNREFUSED') throw error;
    unlinkSync(path);
    return;
  } finally {
    probe.destroy();
  }
  throw new AgentError('FILE_ERROR', `cannot listen on ${path}: EADDRINUSE`, {
    hint: 'another server runs there; choose another address',
  });
}
