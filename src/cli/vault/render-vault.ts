/** Renders the results of the `vault` commands for people. */
import { formatBytes } from '../../base/bytes.ts';
import { localTime } from '../render/job.ts';
import { printable, renderList, renderTable } from '../render/table.ts';
import type {
  AtWorkDocument,
  InfoDocument,
  InitDocument,
  KeyChangeDocument,
  KeyDocument,
  KeyListDocument,
  ParticipantDocument,
} from './documents.ts';

export function renderInit({ location, id, key_file: keyFile, recovery_code: code }: InitDocument): string {
  const entries: [string, string][] = [
    ['vault', location],
    ['id', id],
  ];
  if (keyFile !== null) entries.push(['key file', keyFile]);
  return `${renderList(entries)}${code === null ? '' : recoveryText(code)}`;
}

/** Splits the code into two lines, because narrow paper would break a single line. */
function recoveryText(code: string): string {
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

export function renderInfo(info: InfoDocument): string {
  const entries: [string, string][] = [
    ['vault', info.location],
    ['id', info.id],
    ['made', localTime(info.created)],
    ['chunks', formatBytes(info.chunk_size)],
    ['packs', formatBytes(info.pack_size)],
    ...info.keys.map((key): [string, string] => ['key', keyText(key)]),
    ...info.damaged_keys.map(({ id, message }): [string, string] => ['damaged', `key ${id}: ${message}`]),
  ];
  const { contents } = info;
  entries.push(['', notProven]);
  if (contents === null) entries.push(['points', 'a key is needed to list them']);
  else {
    entries.push(['points', String(contents.points)]);
    if (contents.damaged_points > 0)
      entries.push(['damaged', `${contents.damaged_points} points; run dattocli vault check`]);
    if (contents.machines.length > 0) entries.push(['machines', contents.machines.join(', ')]);
    if (contents.first !== null) entries.push(['first', localTime(contents.first)]);
    if (contents.last !== null) entries.push(['last', localTime(contents.last)]);
  }
  return renderList(entries);
}

/** Key slots are stored in clear text. Only the sealed key in a slot is authenticated. */
const notProven =
  'kinds, labels and times of keys are not verified: anyone with write access to the store can ' +
  'change them';

const kinds = { file: 'key file', passphrase: 'passphrase', recovery: 'recovery code' } as const;

function keyText({ id, kind, label, created }: KeyDocument): string {
  const named = label === '' ? '' : ` "${label}"`;
  return `${id.slice(0, 8)} ${kinds[kind]}${named}, since ${localTime(created)}`;
}

export function renderKeyList({ keys, damaged }: KeyListDocument): string {
  const table = renderTable(
    [{ title: 'key' }, { title: 'kind' }, { title: 'label' }, { title: 'since' }],
    keys.map(({ id, kind, label, created }) => [id, kinds[kind], label, localTime(created)]),
  );
  return `${table}${notProven}\n${damaged.map(({ id, message }) => `damaged: ${id}: ${printable(message)}\n`).join('')}`;
}

export function renderKey({
  added,
  removed,
  key_file: file,
  recovery_code: code,
}: KeyChangeDocument): string {
  const entries: [string, string][] = [[removed === null ? 'added' : 'changed', keyText(added)]];
  if (removed !== null) entries.push(['replaces', removed]);
  if (file !== null) entries.push(['key file', file]);
  return `${renderList(entries)}${code === null ? '' : recoveryText(code)}`;
}

export function renderAtWork({ writers, locks }: AtWorkDocument): string {
  const all = [...writers, ...locks];
  if (all.length === 0) return 'no active writers or locks\n';
  return renderTable(
    [
      { title: 'id' },
      { title: 'what' },
      { title: 'host' },
      { title: 'process', align: 'right' },
      { title: 'since' },
      { title: 'last sign of life' },
    ],
    all.map(({ id, what, host, pid, started, last_sign: sign }) => [
      id,
      what === '' ? '?' : what,
      host ?? '?',
      pid === null ? '?' : String(pid),
      started === '' ? '?' : localTime(started),
      localTime(sign),
    ]),
  );
}

export function renderParticipant({ id, what, host, pid, started }: ParticipantDocument): string {
  if (host === null) return `${id}, whose document cannot be read`;
  return `${id}, ${what} by process ${pid ?? '?'} of ${printable(host)}, started ${started}`;
}
