/**
 * The one place that turns an error into what a person reads and the exit code of a program. All programs
 * end through here, so that every error is one line with its next step, and one JSON object under `--json`.
 */
import { type AgentError, toAgentError } from './errors.ts';
import { visible, visibleLine } from './visible.ts';

export interface ErrorReport {
  /** One line without its end: `PROGRAM: MESSAGE (HINT)`, or the JSON object `{code, message, hint}`. */
  readonly line: string;
  readonly exitCode: number;
  readonly error: AgentError;
}

/** Describes whatever was thrown. Never throws itself. */
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
