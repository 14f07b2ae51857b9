/** What every command gets, and the options that every command has. */
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
  /** Documents instead of text. */
  readonly json: boolean;
  /** Prints a document under `--json`, else the text. */
  readonly print: (document: unknown, render: () => string) => void;
  /** Prints what is nowhere else, such as a recovery code. Throws FILE_ERROR if it did not arrive. */
  readonly deliver: (document: unknown, render: () => string) => void;
}

/** Makes a command's action of its work, which gives the exit code. */
export type Run = (
  work: (context: Context, command: Command) => Promise<number>,
) => (this: Command) => Promise<void>;

const defaultSocket = '/run/dattod.sock';

/** `socket`: the command asks the daemon. */
export function addCommonOptions(command: Command, socket = true): Command {
  command.option('--json', 'print JSON documents, also for errors');
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
