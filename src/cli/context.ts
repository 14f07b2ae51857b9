/** The context that every command gets, and the options that every command has. */
import type { Command } from 'commander';
import { Client } from './client.ts';
import type { Io } from './io.ts';

export interface CommonOptions {
  socket?: string;
  json?: true;
}

export interface Context {
  readonly io: Io;
  readonly client: Client;
  /** Print JSON documents instead of text. */
  readonly json: boolean;
  /** Prints the document with `--json`, else the text. */
  readonly print: (document: unknown, render: () => string) => void;
  /** Prints a result that exists nowhere else, such as a recovery code. Throws FILE_ERROR if the write failed. */
  readonly deliver: (document: unknown, render: () => string) => void;
}

/** Turns the work of a command into its action. The work returns the exit code. */
export type Run = (
  work: (context: Context, command: Command) => Promise<number>,
) => (this: Command) => Promise<void>;

const defaultSocket = '/run/dattod.sock';

/** Adds the common options. `socket`: the command talks to the daemon, so it has `--socket`. */
export function addCommonOptions(command: Command, socket = true): Command {
  command.option('--json', 'print JSON documents, for errors too');
  if (socket) command.option('--socket <path>', `socket of dattod (default: ${defaultSocket})`);
  return command.helpOption('-h, --help', 'print this help');
}

export function createContext(io: Io, options: CommonOptions): Context {
  const json = options.json === true;
  const print: Context['print'] = (document, render) =>
    io.out(json ? `${JSON.stringify(document)}\n` : render());
  return {
    io,
    json,
    client: new Client(options.socket ?? defaultSocket),
    print,
    deliver: (document, render) => {
      print(document, render);
      io.finishOut(true);
    },
  };
}
