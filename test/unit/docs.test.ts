import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { test } from 'node:test';

const root = join(import.meta.dirname, '../..');
const pages = globSync(['*.md', 'docs/**/*.md'], { cwd: root });

/** Returns the targets of the links in a page that are files of this repository, relative to the root. */
function linked(page: string): string[] {
  const text = readFileSync(join(root, page), 'utf8').replace(/```[^]*?```/g, '');
  return [...text.matchAll(/\]\(([^)\s]+)\)/g)]
    .map(([, target = '']) => target.replace(/#.*/, ''))
    .filter((target) => target !== '' && !/^[a-z]+:/.test(target))
    .map((target) => relative(root, join(root, dirname(page), target)));
}

test('every link between the documents leads somewhere', () => {
  for (const page of pages)
    for (const target of linked(page))
      assert.ok(existsSync(join(root, target)), `${page} links to ${target}`);
});

test('docs/README.md lists every page under docs/', () => {
  const listed = new Set(linked('docs/README.md'));
  for (const page of pages)
    if (page.startsWith('docs/') && page !== 'docs/README.md')
      assert.ok(listed.has(page), `docs/README.md does not list ${page}`);
});

test('documents that comments, messages and scripts name exist', () => {
  const sources = globSync(
    ['{src,test,scripts,bench}/**/*.{ts,sh,mjs,txt}', '*.mjs', 'install_deps', 'run_tests'],
    {
      cwd: root,
    },
  );
  const names = /(?<![\w/.-])(?:docs\/[\w/-]+|[A-Z]{4,})\.md\b/g;
  for (const source of sources)
    for (const [name] of readFileSync(join(root, source), 'utf8').matchAll(names))
      assert.ok(existsSync(join(root, name)), `${source} names ${name}`);
});

test('the way of a block in ARCHITECTURE.md names files that exist, ten at most', () => {
  const [, way = ''] =
    /## The way of one block\n([^]*?)\n## /.exec(readFileSync(join(root, 'ARCHITECTURE.md'), 'utf8')) ?? [];
  const files = [...way.matchAll(/`([\w/-]+\.ts)`/g)].map(([, file = '']) => file);
  assert.ok(files.length > 0 && files.length <= 10, `${files.length} files`);
  for (const file of files) assert.ok(existsSync(join(root, 'src', file)), file);
});
