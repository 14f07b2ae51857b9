/**
 * Makes the software bill of materials of build/ as CycloneDX 1.6 JSON. It lists only the packages that are in build/,
 * not all of node_modules. It holds names, versions, licences and checksums only, so that two builds have the same
 * bytes.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface SbomOptions {
  readonly root: string;
  readonly version: string;
  /** Folders of the bundled packages, relative to the root, sorted. */
  readonly packages: readonly string[];
  /** The runtime that was copied. */
  readonly runtime: {
    readonly path: string;
    readonly versions: Readonly<Record<string, string | undefined>>;
  };
}

interface Component {
  readonly type: 'application' | 'library';
  readonly 'bom-ref': string;
  readonly group?: string;
  readonly name: string;
  readonly version: string;
  readonly hashes?: readonly { readonly alg: string; readonly content: string }[];
  readonly licenses?: readonly { readonly expression: string }[];
  readonly purl?: string;
  readonly components?: readonly Component[];
}

export function sbom(options: SbomOptions): string {
  const { root, version, packages, runtime } = options;
  const lock = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { integrity?: string } | undefined>;
  };
  const { license } = packageFile(root, '');
  const own: Component = {
    type: 'application',
    'bom-ref': `linux-agent@${version}`,
    name: 'linux-agent',
    version,
    ...licences(license),
  };
  const components = [
    ...packages.map((folder) => packageComponent(root, folder, lock.packages[folder]?.integrity)),
    runtimeComponent(runtime),
  ];
  const document = {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: { lifecycles: [{ phase: 'build' }], component: own },
    components,
    dependencies: [
      { ref: own['bom-ref'], dependsOn: components.map((component) => component['bom-ref']).sort() },
    ],
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

function packageComponent(root: string, folder: string, integrity: string | undefined): Component {
  const { name, version, license } = packageFile(root, folder);
  const at = name.startsWith('@') ? name.indexOf('/') : -1;
  const purl = `pkg:npm/${name.replace('@', '%40')}@${version}`;
  // An integrity in package-lock.json is the name of an algorithm and a hash in base64.
  const sha512 = /^sha512-(.+)$/.exec(integrity ?? '')?.[1];
  return {
    type: 'library',
    'bom-ref': purl,
    ...(at < 0 ? {} : { group: name.slice(0, at) }),
    name: name.slice(at + 1),
    version,
    ...(sha512 === undefined
      ? {}
      : { hashes: [{ alg: 'SHA-512', content: Buffer.from(sha512, 'base64').toString('hex') }] }),
    ...licences(license),
    purl,
  };
}

/** Returns Node with the libraries that are compiled into it, because security advisories name those libraries. */
function runtimeComponent({ path, versions }: SbomOptions['runtime']): Component {
  const { node = '', ...inside } = versions;
  const purl = `pkg:generic/node@${node}`;
  return {
    type: 'application',
    'bom-ref': purl,
    name: 'node',
    version: node,
    hashes: [{ alg: 'SHA-256', content: sha256(path) }],
    ...licences('MIT'),
    purl,
    components: Object.entries(inside)
      // These two are version numbers of interfaces, not of libraries.
      .filter(([name]) => !['modules', 'napi'].includes(name))
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, number = '']) => ({
        type: 'library',
        'bom-ref': `${purl}#${name}`,
        name,
        version: number,
      })),
  };
}

export function sha256(path: string): string {
  return createHash('sha256').update(readFileSync(path)).digest('hex');
}

function licences(license: string | undefined): Pick<Component, 'licenses'> {
  return license === undefined ? {} : { licenses: [{ expression: license }] };
}

function packageFile(root: string, folder: string): { name: string; version: string; license?: string } {
  return JSON.parse(readFileSync(join(root, folder, 'package.json'), 'utf8')) as {
    name: string;
    version: string;
    license?: string;
  };
}
