/**
 * `npm run prose [FILE…]`: checks the prose of documents, comments, messages, help texts and names of tests against rules.ts.
 * Prints `FILE:LINE:COLUMN problem` and exits 1 if there are any. Default: all files of the repository but `notYetRewritten`.
 */
import { globSync, readFileSync } from 'node:fs';
import { extname, join, matchesGlob } from 'node:path';
import { TextlintKernel } from '@textlint/kernel';
import markdownModule from '@textlint/textlint-plugin-markdown';
import type { TextlintRuleReporter } from '@textlint/types';
import { plainText } from './plain-text.ts';
import { problemsOf } from './rules.ts';
import { typescriptPlugin } from './typescript-plugin.ts';

process.chdir(join(import.meta.dirname, '../..'));

const everything = ['*.md', 'docs/**/*.md', '{src,test,bench,scripts}/**/*.ts'];

/** Rooms whose prose is older than the rules. Rewrite a room, then take its line out; new rooms are never put in. */
const notYetRewritten = readFileSync('scripts/prose/not-yet-rewritten.txt', 'utf8')
  .split('\n')
  .filter(Boolean);

const rule: TextlintRuleReporter = (context) => {
  const { Syntax, RuleError, report, locator, getSource } = context;
  const check = (node: Parameters<typeof getSource>[0] & object): void => {
    for (const { index, message } of problemsOf(plainText(getSource(node))))
      report(node, new RuleError(message, { padding: locator.at(index) }));
  };
  return { [Syntax.Paragraph]: check, [Syntax.TableCell]: check };
};

// The plugin is a CommonJS module that was compiled from an ES module.
const { default: markdown } = markdownModule;
const kernel = new TextlintKernel();
const named = process.argv.slice(2);
const files =
  named.length > 0
    ? named
    : globSync(everything)
        .filter((file) => !notYetRewritten.some((pattern) => matchesGlob(file, pattern)))
        .sort();

let problems = 0;
for (const filePath of files) {
  const { messages } = await kernel.lintText(readFileSync(filePath, 'utf8'), {
    filePath,
    ext: extname(filePath),
    plugins: [
      { pluginId: 'markdown', plugin: markdown },
      { pluginId: 'typescript', plugin: typescriptPlugin },
    ],
    rules: [{ ruleId: 'plain-english', rule }],
  });
  for (const { loc, message } of messages)
    console.log(`${filePath}:${loc.start.line}:${loc.start.column} ${message}`);
  problems += messages.length;
}
console.log(`prose: ${files.length} files, ${problems} problems`);
process.exitCode = problems > 0 ? 1 : 0;
