/**
 * The version of this agent from package.json. The build inserts it (scripts/build). In the sources it is read from
 * package.json at start.
 */
import { readFileSync } from 'node:fs';

declare const AGENT_VERSION: string | undefined;

export const agentVersion: string = typeof AGENT_VERSION === 'string' ? AGENT_VERSION : versionOfPackage();

function versionOfPackage(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return (JSON.parse(text) as { version: string }).version;
}
