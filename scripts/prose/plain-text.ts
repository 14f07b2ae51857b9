/**
 * A piece of Markdown or of a comment as plain text. Code becomes one word of x, and other markup becomes spaces.
 * The length stays, so an offset in one is an offset in the other.
 */
export function plainText(raw: string): string {
  const spaces = (text: string): string => ' '.repeat(text.length);
  return (
    raw
      .replace(/^(?:\/\*\*?|\/\/)/, spaces)
      .replace(/\*\/$/, spaces)
      .replace(/\n[ \t]*(?:\*(?!\*)|\/\/|>)?/g, spaces)
      .replace(/``.*?``|`[^`]*`/g, (code) => 'x'.repeat(code.length))
      .replace(/\$\{[^}]*\}/g, (value) => 'x'.repeat(value.length))
      .replace(/\{@link [^}]*\}/g, (link) => 'x'.repeat(link.length))
      // The address of a link, then what marks a link or emphasis.
      .replace(/\]\([^)]*\)/g, spaces)
      .replace(/\*\*|(?<=\s|^)[*_[]+|[*_\]]+(?=\s|$|[.,;:!?])/g, spaces)
  );
}
