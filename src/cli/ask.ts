/** Asks at the terminal for a secret, such as a passphrase or a recovery code, without echo. */
import type { ReadStream, WriteStream } from 'node:tty';
import { AgentError } from '../base/errors.ts';

/** A line that is typed in raw mode. Backspace and Ctrl-U edit the line; Ctrl-C and Ctrl-D end it. */
export class TypedLine {
  #characters: string[] = [];

  /** Adds typed text. Returns the line when it is complete, else undefined. Throws CANCELLED. */
  feed(text: string): string | undefined {
    for (const character of text) {
      if (character === '\r' || character === '\n') return this.#characters.join('');
      if (character === '\u0003' || (character === '\u0004' && this.#characters.length === 0))
        throw new AgentError('CANCELLED', 'Cancelled: nothing was entered');
      if (character === '\u0004') return this.#characters.join('');
      if (character === '\u007f' || character === '\b') this.#characters.pop();
      else if (character === '\u0015') this.#characters = [];
      else if (character >= ' ') this.#characters.push(character);
    }
    return undefined;
  }
}

/** Returns the typed line. Throws BAD_USAGE if `input` is not a terminal, CANCELLED at Ctrl-C or a hang-up. */
export async function askAtTerminal(
  question: string,
  input: ReadStream,
  output: Pick<WriteStream, 'write'>,
): Promise<string> {
  if (!input.isTTY)
    throw new AgentError('BAD_USAGE', `Cannot ask for "${question}": standard input is not a terminal`, {
      hint: 'use --passphrase-file, --recovery-code-file or --key-file',
    });
  output.write(`${question}: `);
  const line = new TypedLine();
  input.setRawMode(true);
  input.ref();
  input.setEncoding('utf8');
  try {
    for await (const text of input.iterator({ destroyOnReturn: false })) {
      const done = line.feed(String(text));
      if (done !== undefined) return done;
    }
    throw new AgentError('CANCELLED', 'Cancelled: the terminal was closed');
  } finally {
    input.setRawMode(false);
    // An open standard input would keep the process running.
    input.pause();
    input.unref();
    output.write('\n');
  }
}
