/**
 * Makes a server listen on TCP or on a Unix socket. Only its owner can use a Unix socket, from its first moment. A
 * socket that no process listens on any more is replaced. Any other file at the path is left unchanged.
 */
import { once } from 'node:events';
import { lstatSync, statSync, unlinkSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';
import { AgentError, errnoCode } from './errors.ts';

export type ListenAddress = { readonly host: string; readonly port: number } | { readonly path: string };

/**
 * Makes `server` listen at `where`. Throws FILE_EXISTS if another kind of file is at the path, FILE_ERROR if the
 * address cannot be used. `hint` is the next step for the user after either error.
 */
export async function listenOn(
  server: Server,
  where: ListenAddress,
  hint = 'choose another address',
): Promise<void> {
  const name = 'path' in where ? where.path : `${where.host}:${where.port}`;
  try {
    if ('path' in where) await makeRoom(where.path, hint);
    const listening = once(server, 'listening');
    // The socket is made before `listen` returns, so the umask is needed only until then.
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
    const code = errnoCode(error) ?? String(error);
    throw new AgentError('FILE_ERROR', `cannot listen on ${name}: ${code}`, {
      hint: code === 'EADDRINUSE' ? `another server runs there; ${hint}` : hint,
      cause: error,
    });
  }
}

async function makeRoom(path: string, hint: string): Promise<void> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found === undefined) {
    // If the folder does not exist, the error of bind would look like a missing permission.
    statSync(dirname(path));
    return;
  }
  if (!found.isSocket())
    throw new AgentError('FILE_EXISTS', `cannot listen on ${path}: a file that is not a socket lies there`, {
      hint,
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
    hint: `another server runs there; ${hint}`,
  });
}
