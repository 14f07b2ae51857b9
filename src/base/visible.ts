/**
 * The one place that makes foreign text harmless for terminals and logs: labels, paths, names of exports, hosts and
 * mount points, messages of servers. Characters that a terminal obeys (C0, DEL, C1) or that reorder or break lines
 * (bidirectional controls, line and paragraph separators) are written as JSON escapes, so JSON documents stay the same.
 *
 * Everything that this program writes passes here on its way out: StandardOutput, `writeError`, the log, `reportError`.
 * `test/unit/terminal-doors.test.ts` holds the sources to that.
 */
const obeyed = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

/** Text of several lines: its line ends and tabs stay. */
export function visible(text: string): string {
  return text.replaceAll(obeyed, (character) =>
    character === '\n' || character === '\t' ? character : escaped(character),
  );
}

/** A part of a line: it can neither end the line nor begin another. */
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

/** Writes to standard output; for results that have to arrive, see StandardOutput. */
export function writeOut(text: string): void {
  process.stdout.write(visible(text));
}
