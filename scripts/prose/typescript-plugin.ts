/**
 * A textlint plugin for TypeScript. Its paragraphs are the comments, split at empty lines, and the long texts in quotes:
 * messages, help, names of tests. Lines of `//` that follow each other are one paragraph.
 */
import { ASTNodeTypes, type TxtDocumentNode, type TxtParagraphNode } from '@textlint/ast-node-types';
import type { TextlintMessage, TextlintPluginCreator } from '@textlint/types';
import ts from 'typescript';

/** A text in quotes with fewer words is a name or a code, not prose. */
const fewestWords = 4;
/** The start of a statement or condition of SQL, which is code. */
const sql = /^\s*(?:BEGIN|CREATE|DELETE|DROP|EXISTS|INSERT|PRAGMA|SELECT|UPDATE)\b/;

type Span = readonly [start: number, end: number];

export const typescriptPlugin: TextlintPluginCreator = {
  Processor: class {
    availableExtensions(): string[] {
      return ['.ts', '.mjs'];
    }
    processor() {
      return {
        preProcess: parse,
        postProcess: (messages: TextlintMessage[], filePath?: string) => ({
          messages,
          filePath: filePath ?? '',
        }),
      };
    }
  },
};

function parse(text: string): TxtDocumentNode {
  const source = ts.createSourceFile('x.ts', text, ts.ScriptTarget.Latest, true);
  const locate = (offset: number) => {
    const { line, character } = source.getLineAndCharacterOfPosition(offset);
    return { line: line + 1, column: character };
  };
  const located = (start: number, end: number) => ({
    raw: text.slice(start, end),
    range: [start, end] as const,
    loc: { start: locate(start), end: locate(end) },
  });
  const children = [...commentsOf(source), ...textsOf(source)]
    .sort((a, b) => a[0] - b[0])
    .map(([start, end]): TxtParagraphNode => ({
      type: ASTNodeTypes.Paragraph,
      ...located(start, end),
      children: [],
    }));
  return { type: ASTNodeTypes.Document, ...located(0, text.length), children };
}

function commentsOf(source: ts.SourceFile): Span[] {
  const { text } = source;
  const found = new Map<number, ts.CommentRange>();
  const visit = (node: ts.Node): void => {
    const ranges = [
      ...(ts.getLeadingCommentRanges(text, node.getFullStart()) ?? []),
      ...(ts.getTrailingCommentRanges(text, node.getEnd()) ?? []),
    ];
    for (const range of ranges) found.set(range.pos, range);
    for (const child of node.getChildren(source)) visit(child);
  };
  visit(source);
  const spans: [number, number][] = [];
  let lastLine: [number, number] | undefined;
  for (const { pos, end, kind } of [...found.values()].sort((a, b) => a.pos - b.pos)) {
    if (kind === ts.SyntaxKind.MultiLineCommentTrivia) {
      spans.push(...paragraphs(text, pos, end));
      lastLine = undefined;
    } else if (lastLine !== undefined && /^\r?\n[ \t]*$/.test(text.slice(lastLine[1], pos)))
      lastLine[1] = end;
    else spans.push((lastLine = [pos, end]));
  }
  return spans;
}

/** A comment split where a line holds nothing but its star. */
function* paragraphs(text: string, start: number, end: number): Generator<[number, number]> {
  let from = start;
  for (const gap of text.slice(start, end).matchAll(/\n[ \t]*\*[ \t]*(?=\n)/g)) {
    yield [from, start + gap.index];
    from = start + gap.index + gap[0].length;
  }
  yield [from, end];
}

function textsOf(source: ts.SourceFile): Span[] {
  const spans: Span[] = [];
  const visit = (node: ts.Node): void => {
    const isText =
      ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node) || ts.isTemplateExpression(node);
    const words = node.getText(source).slice(1, -1);
    if (isText && words.split(/\s+/).length >= fewestWords && !sql.test(words))
      spans.push([node.getStart(source) + 1, node.getEnd() - 1]);
    node.forEachChild(visit);
  };
  visit(source);
  return spans;
}
