/** A process at work in a vault: `writers/WRITER` and `locks/LOCK` (docs/formats/vault.md). */
import * as Type from 'typebox';
import { count, text } from '../schema.ts';
import { type Stored, timestamp } from './stored.ts';

const owner = Type.Object({
  host: text('for messages only'),
  machine: text('from /etc/machine-id; empty if there is none'),
  boot: text('from /proc/sys/kernel/random/boot_id'),
  pid_namespace: Type.Optional(
    text('the PID namespace of `pid`; absent in documents of earlier versions, empty if it is unknown'),
  ),
  pid: count('process ID'),
  start_time: count('clock ticks from boot to the start of the process'),
});

export const participant = Type.Object({
  owner,
  started: timestamp('by its own clock'),
  what: Type.Optional(text('`prune` or `repair` for locks; absent for writers')),
});
export type Owner = Stored<typeof owner>;
