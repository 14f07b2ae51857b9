/** Asks at the terminal for what may not be seen: a passphrase, a recovery code. */
import type { ReadStream, WriteStream } from 'node:tty';
import { AgentError } from '../base/errors.ts';

/** A line as it is typed in raw mode: backspace and Ctrl-U work, Ctrl-C and Ctrl-D end it. */
export class TypedLine {
  #characters: string[] = [];

  /** The line once it is complete; undefined while it is not. Throws CANCELLED. */
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

/** Throws BAD_USAGE without a terminal, CANCELLED. */
export async function askAtTerminal(
  question: string,
  input: ReadStream,
  output: Pick<WriteStream, 'write'>,
): Promise<string> {
  if (!input.isTTY)
    throw new AgentError('BAD_USAGE', `Nobody can be asked: ${question}? Standard input is no terminal`, {
      hint: 'give a file: --passphrase-file, --recovery-code-file or --key-file',
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
    throw new AgentError('CANCELLED', 'Cancelled: the terminal is gone');
  } finally {
    input.setRawMode(false);
    // Otherwise it would keep the process from ending.
    input.pause();
    input.unref();
    output.write('\n');
  }
}
