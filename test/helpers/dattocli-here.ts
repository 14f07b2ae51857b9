/**
 * Runs dattocli in this process, much quicker than as a program. It is for commands that need no daemon, or
 * with a daemon whose socket is given. A test can press Ctrl-C when the output matches a pattern.
 */
import assert from 'node:assert/strict';
import type * as Type from 'typebox';
import type { ErrorDocument } from '../../src/base/errors.ts';
import { type OutputFile, StandardOutput } from '../../src/base/standard-output.ts';
import { runDattocli } from '../../src/cli/main.ts';
import type { Io } from '../../src/cli/io.ts';
import { assertFits } from './answers.ts';

export interface Said {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

export interface HereOptions {
  /** Presses Ctrl-C as soon as standard output or error matches, before the command continues. */
  readonly interrupt?: RegExp;
  /** The answers to the command's questions, in order. */
  readonly answers?: readonly string[];
  /** Destination of standard output. Default: everything is kept. */
  readonly output?: OutputFile;
}

export async function dattocliHere(args: readonly string[], options: HereOptions = {}): Promise<Said> {
  let out = '';
  let err = '';
  let press = (): void => undefined;
  let pressed = false;
  const answers = [...(options.answers ?? [])];
  const look = (): void => {
    if (options.interrupt === undefined || pressed || !options.interrupt.test(out + err)) return;
    pressed = true;
    press();
  };
  const output = options.output === undefined ? undefined : new StandardOutput(options.output);
  const io: Io = {
    out: (text) => {
      out += text;
      output?.write(text);
      look();
    },
    finishOut: (needed) => output?.finish(needed),
    err: (text) => {
      err += text;
      look();
    },
    isTerminal: false,
    onInterrupt: (callback) => {
      press = callback;
      if (pressed) callback();
      return () => undefined;
    },
    askSecret: (question) => {
      const answer = answers.shift();
      assert.ok(answer !== undefined, `nobody was to be asked: ${question}`);
      return Promise.resolve(answer);
    },
    quit: (code) => {
      throw new Error(`left at once with ${code}`);
    },
  };
  const code = await runDattocli(args, io);
  return { code, out, err };
}

/** Returns the document that the command prints with `--json`. Fails if the exit code differs. */
export async function documentOf<T>(args: readonly string[], code = 0): Promise<T> {
  const said = await dattocliHere([...args, '--json']);
  assert.equal(said.code, code, `${args.join(' ')}: ${said.err}${said.out}`);
  assert.equal(said.out.indexOf('\n'), said.out.length - 1, 'one document on one line');
  return JSON.parse(said.out) as T;
}

/** The same for a document with a schema. Asserts that it has every field of the schema and no other. */
export async function documentLike<T extends Type.TSchema>(
  schema: T,
  args: readonly string[],
  code = 0,
): Promise<Type.Static<T>> {
  const document = await documentOf<Type.Static<T>>(args, code);
  assertFits({}, schema, document, args.join(' '));
  return document;
}

/**
 * Asserts that the command is refused with this code, in one line for people and one object for scripts, with
 * a next step.
 */
export async function refusedHere(
  args: readonly string[],
  code: ErrorDocument['code'],
  exit = 1,
): Promise<ErrorDocument> {
  const plain = await dattocliHere(args);
  assert.match(plain.err, /^dattocli: [^\n]+\n$/, `${args.join(' ')}: ${plain.out}`);
  const json = await dattocliHere([...args, '--json']);
  const document = JSON.parse(json.err) as ErrorDocument;
  assert.equal(document.code, code, json.err);
  assert.deepEqual([plain.code, json.code, plain.out, json.out], [exit, exit, '', '']);
  assert.ok(document.hint !== undefined && document.hint.length > 10, `no next step: ${json.err}`);
  return document;
}
