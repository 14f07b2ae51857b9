/**
 * Bundles the programs with esbuild into ES modules with shared chunks. All lie in one flat folder, so that every chunk
 * finds native modules and other entries beside itself.
 */
import { copyFileSync, mkdirSync, readdirSync } from 'node:fs';
import { join, relative, sep } from 'node:path';
import { build, type Plugin } from 'esbuild';
import type { Entry } from './entries.ts';

export interface BundleOptions {
  readonly root: string;
  readonly entries: readonly Entry[];
  readonly outdir: string;
  readonly version: string;
  readonly debug: boolean;
}

export interface BundleResult {
  readonly files: number;
  /** Folders of the bundled packages, relative to the root, sorted. */
  readonly packages: string[];
}

/**
 * The native modules. A package searches several places for its binary; the bundle loads it from `native/` beside
 * itself. `module` replaces the source of the file that `loader` matches.
 */
const natives = [
  {
    file: 'koffi.node',
    loader: /node_modules\/koffi\/src\/koffi\/src\/static\.js$/,
    module: `import { createRequire } from 'node:module';
      const load = createRequire(import.meta.url);
      export const loadStatic = () => load('./native/koffi.node');`,
    from: (arch: string) => `@koromix/koffi-linux-${arch}/linux_${arch}/koffi.node`,
  },
  {
    file: 'blake.node',
    loader: /node_modules\/@napi-rs\/blake-hash\/index\.js$/,
    module: `module.exports = require('./native/blake.node');`,
    from: (arch: string) => `@napi-rs/blake-hash-linux-${arch}-gnu/blake.linux-${arch}-gnu.node`,
  },
];

/** The variables that CommonJS packages expect, which an ES module does not have. */
const banner = `import { createRequire as nodeCreateRequire } from 'node:module';
const require = nodeCreateRequire(import.meta.url), __filename = import.meta.filename, __dirname = import.meta.dirname;`;

export async function bundle(options: BundleOptions): Promise<BundleResult> {
  const native = join(options.outdir, 'native');
  mkdirSync(native);
  for (const { file, from } of natives)
    copyFileSync(join(options.root, 'node_modules', from(process.arch)), join(native, file));

  const result = await build({
    absWorkingDir: options.root,
    entryPoints: options.entries.map(({ name, source }) => ({ in: source, out: name })),
    outdir: options.outdir,
    bundle: true,
    splitting: true,
    chunkNames: 'chunk-[hash]',
    format: 'esm',
    platform: 'node',
    target: 'node24',
    // Identifiers are not minified, so that a stack trace in a bug report can be read.
    minifyWhitespace: !options.debug,
    minifySyntax: !options.debug,
    sourcemap: options.debug ? 'linked' : false,
    legalComments: 'none',
    banner: { js: banner },
    define: { AGENT_VERSION: JSON.stringify(options.version) },
    external: ['./native/*'],
    plugins: [nativeModules, builtinModules],
    metafile: true,
    logLevel: 'warning',
  });
  return {
    files: readdirSync(options.outdir).length,
    packages: packagesOf([
      ...Object.keys(result.metafile.inputs),
      ...natives.map(({ from }) => `node_modules/${from(process.arch)}`),
    ]),
  };
}

const nativeModules: Plugin = {
  name: 'native modules',
  setup: (esbuild) => {
    for (const { loader, module } of natives)
      esbuild.onLoad({ filter: loader }, () => ({ contents: module, loader: 'js' }));
    esbuild.onLoad({ filter: /\.node$/ }, ({ path }) => ({
      errors: [
        { text: `${relative('', path)} is not in the table of native modules in scripts/build/bundle.ts` },
      ],
    }));
  },
};

/**
 * Loads Node's own modules in the way of CommonJS. An `import` of such a module evaluates all its lazy exports. For
 * node:http that loads all of fetch and HTTP/2, which costs 40 ms and 10 MB in each program and thread.
 */
const builtinModules: Plugin = {
  name: 'builtin modules',
  setup: (esbuild) => {
    esbuild.onResolve({ filter: /^node:/ }, ({ path, kind, namespace }) =>
      kind === 'import-statement' && namespace === 'file' ? { path, namespace: 'builtin' } : undefined,
    );
    esbuild.onLoad({ filter: /./, namespace: 'builtin' }, ({ path }) => ({
      contents: `module.exports = process.getBuiltinModule(${JSON.stringify(path)});`,
      loader: 'js',
    }));
  },
};

/**
 * Returns the packages' folders, sorted: `node_modules/a/x.js` and `node_modules/@b/c/y.js` become `node_modules/a` and
 * `node_modules/@b/c`.
 */
function packagesOf(inputs: readonly string[]): string[] {
  const folders = inputs.flatMap((input) => {
    const match = /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(input.split(sep).join('/'));
    return match?.[1] === undefined ? [] : [match[1]];
  });
  return [...new Set(folders)].sort();
}
