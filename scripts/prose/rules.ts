/**
 * The rules of our prose (CONTRIBUTING.md, "Writing"), over one paragraph of plain English without
 * markup. They find what a machine can find; a reader has to find the rest.
 */
import { split } from 'sentence-splitter';

export interface Problem {
  /** Offset in the paragraph, in UTF-16 code units. */
  readonly index: number;
  readonly message: string;
}

/** The most words that a sentence may have. The aim is 20; a list within a sentence may take a few more. */
export const longestSentence = 30;

const sayIf = 'a condition says "if" or "when"';

/** Each pattern with its advice. `^` is the start of a sentence; a question may begin with anything. */
const patterns: readonly (readonly [pattern: RegExp, advice: string])[] = [
  [/^(?:what|whatever|whoever|whichever|who)\b(?!.*\?)/i, 'begin with the thing itself'],
  [/^where\b(?!.*\?)/i, sayIf],
  [
    /\bwhere (?:undefined|absent|missing|possible|needed|necessary|known|asked|wanted|given|present|nothing|none|no|not)\b/i,
    sayIf,
  ],
  [/\bwhere (?:there|it|they|this|that) (?:is|are|was|were|has|have|had|do|does|did|can|cannot)\b/i, sayIf],
  [/\b(?:whoever|somebody|someone|nobody|everybody)\b/i, 'name the actor: the caller, another process'],
  [
    /\bwhat (?:is|was|has been|had been|goes|went|comes|came|lies|lay|stands|stood|holds|held) \w+/i,
    'name the thing: "data that is written", "errors"',
  ],
  [/\banew\b/i, 'say "again"'],
  [/\bbesides\b/i, 'say "also"'],
  [/\bgo(?:es)? again\b/i, 'say "is removed"'],
  [/\b(?:is|are|was|were) told of\b/i, 'name who reports it'],
  [
    /\b(?:took|takes?|taken) (?:\w+ ){0,2}for (?:dead|gone|lost)\b/i,
    'say "declares stale", "treats as lost"',
  ],
  [/\bin doubt\b/i, 'say "possibly incomplete", and why'],
  [
    /\b(?:is|are) no (?:number|key|link|file|directory|device|block device|path|name|UUID|URL|URI|size|time|date|list|object|string)\b/i,
    'say "is not a …"',
  ],
  [/\bone word too many\b|\banother word is needed\b/i, 'say "unexpected argument", "missing subcommand"'],
  [/\bis said\b|\bsays so\b/i, 'name the report and its author'],
];

/** The problems of a paragraph, in the order of their places. */
export function problemsOf(paragraph: string): Problem[] {
  const problems: Problem[] = [];
  // The splitter takes "ms." for a title, like "Mr.".
  for (const node of split(paragraph.replace(/\bms\.(?=\s)/g, 'xx.'))) {
    if (node.type !== 'Sentence') continue;
    const text = node.raw.trimStart();
    const start = node.range[0] + node.raw.length - text.length;
    // A list of names in code is read as one thing.
    const read = text.replace(/\bx+(?:[,()\s]+x+\b)+/g, 'x');
    const words = read.split(/\s+/).filter((word) => /[\p{L}\p{N}]/u.test(word)).length;
    if (words > longestSentence)
      problems.push({
        index: start,
        message: `a sentence of ${words} words: split it (${longestSentence} at most)`,
      });
    for (const [pattern, advice] of patterns) {
      const found = pattern.exec(text);
      if (found !== null) problems.push({ index: start + found.index, message: `"${found[0]}": ${advice}` });
    }
  }
  return problems.sort((a, b) => a.index - b.index);
}
