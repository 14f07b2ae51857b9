/**
 * Exits 0 where node_modules holds what package-lock.json says (npm's own record in node_modules is compared),
 * else 1 with the first difference. So `npm ci`, which removes and fetches everything, is only run when needed.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

interface LockedPackage {
  readonly version?: string;
  readonly integrity?: string;
  readonly optional?: boolean;
}

const root = join(import.meta.dirname, '..');
const difference = firstDifference(
  packagesOf(join(root, 'package-lock.json')),
  packagesOf(join(root, 'node_modules/.package-lock.json')),
);
if (difference !== undefined) {
  console.error(`node_modules is not as package-lock.json has it: ${difference}`);
  process.exit(1);
}

function packagesOf(path: string): Map<string, LockedPackage> {
  const lock = JSON.parse(readFileSync(path, 'utf8')) as { packages: Record<string, LockedPackage> };
  return new Map(Object.entries(lock.packages).filter(([folder]) => folder !== ''));
}

function firstDifference(
  locked: Map<string, LockedPackage>,
  installed: Map<string, LockedPackage>,
): string | undefined {
  for (const [folder, { integrity }] of installed)
    if (locked.get(folder)?.integrity !== integrity) return `${folder} is another version, or extra`;
  for (const [folder, { optional }] of locked)
    if (optional !== true && !installed.has(folder)) return `${folder} is missing`;
  return undefined;
}
