/** How keys of a vault are shown. */
import { localTime } from '../render/local-time.ts';
import type { KeyDocument } from '../../api/vault/output/keys.ts';

/** Key slots are stored in clear text. Only the sealed key in a slot is authenticated. */
export const keysNotVerified =
  'kinds, labels and times of keys are not verified: anyone with write access to the store can ' +
  'change them';

/** Names of the kinds of keys. */
export const keyKinds = { file: 'key file', passphrase: 'passphrase', recovery: 'recovery code' } as const;

export function keyText({ id, kind, label, created }: KeyDocument): string {
  const named = label === '' ? '' : ` "${label}"`;
  return `${id.slice(0, 8)} ${keyKinds[kind]}${named}, since ${localTime(created)}`;
}

/** Splits the code into two lines, because narrow paper would break a single line. */
export function recoveryText(code: string): string {
  const groups = code.split('-');
  const half = Math.ceil(groups.length / 2);
  return [
    '',
    'This recovery code is shown only once. Print it and keep it in another place. Anyone who ' +
      'has it can read the vault.',
    'If all keys are lost, the vault cannot be read.',
    '',
    `    ${groups.slice(0, half).join('-')}-`,
    `    ${groups.slice(half).join('-')}`,
    '',
  ].join('\n');
}
