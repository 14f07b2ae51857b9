/**
 * The one place that turns an error into the text for the user and the exit code of the program. All programs use it
 * when they end. So every error is one line with its next step, or one JSON object under `--json`.
 */
import { type AgentError, toAgentError } from './errors.ts';
import { visible, visibleLine } from './visible.ts';

export interface ErrorReport {
  /** One line without a newline: `PROGRAM: MESSAGE (HINT)`, or the JSON object `{code, message, hint}`. */
  readonly line: string;
  readonly exitCode: number;
  readonly error: AgentError;
}

/** Describes any thrown value. Never throws. */
export function reportError(program: string, thrown: unknown, options: { json?: boolean } = {}): ErrorReport {
  const error = toAgentError(thrown);
  const hint = error.hint === undefined ? '' : ` (${oneLine(error.hint)})`;
  const line =
    options.json === true
      ? visible(JSON.stringify(error.toDocument()))
      : `${program}: ${oneLine(error.message)}${hint}`;
  return { line, exitCode: error.exitCode, error };
}

function oneLine(text: string): string {
  return visibleLine(text.trim().replaceAll(/\s*\n\s*/g, '; '));
}
