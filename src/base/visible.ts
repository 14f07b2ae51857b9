/**
 * The one place that makes foreign text harmless for terminals and logs: labels, paths, names of exports, hosts and
 * mount points, messages of servers. Some characters control a terminal (C0, DEL, C1), others reorder or break lines
 * (bidirectional controls, line and paragraph separators). They are written as JSON escapes, so the meaning of JSON
 * documents does not change.
 *
 * All output of this program goes through these functions: StandardOutput, `writeError`, the log, `reportError`.
 * `test/unit/terminal-doors.test.ts` checks that the sources do so.
 */
const obeyed = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Escapes a text of several lines. Newlines and tabs stay. */
export function visible(text: string): string {
  return text.replaceAll(obeyed, (character) =>
    character === '\n' || character === '\t' ? character : escaped(character),
  );
}

/** Escapes a part of a line. The result contains no newline. */
export function visibleLine(text: string): string {
  return text.replaceAll(obeyed, escaped);
}

function escaped(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

/** Writes to standard error, for people. */
export function writeError(text: string): void {
  process.stderr.write(visible(text));
}

/** Writes to standard output, without a check that the text arrives: for results see StandardOutput. */
export function writeOut(text: string): void {
  process.stdout.write(visible(text));
}
