/**
 * Faults that the program once had, as edits that remove their fixes. find-faults.ts shows that the campaign
 * finds each of them. A unit test checks that the edits match the sources.
 */

export interface Edit {
  readonly file: string;
  /** Occurs once in the file. */
  readonly from: string;
  readonly to: string;
}

export interface Fault {
  /** `1` to `9`, as in the first report of the campaign (docs/reports). */
  readonly name: string;
  readonly about: string;
  /** Steps that come more often, so that the fault is found soon (main.ts, `--favour`). */
  readonly favour: string;
  readonly edits: readonly Edit[];
}

export const faults: readonly Fault[] = [
  {
    name: '1',
    about: 'an older state directory is put back within one boot',
    favour: 'roll the state back',
    edits: [
      {
        file: 'src/tracking/chain.ts',
        from: 'return record.epoch?.id === epoch.id && record.generations?.includes(generation) === true;',
        to: 'return record.epoch?.id === epoch.id;',
      },
    ],
  },
  {
    name: '2',
    about: 'a server comes back in mid-job with an older image',
    favour: 'older image',
    edits: [
      {
        file: 'src/backup/copy/threads.ts',
        from: 'if (again) await this.image.prove(',
        to: 'if (false) await this.image.prove(',
      },
    ],
  },
  {
    name: '3',
    about: 'a device that is not frozen is written to in mid-job',
    favour: 'writable for a moment|written raw|^unmount a',
    edits: [
      {
        file: 'src/backup/run/idle-instant.ts',
        from: '      await syncDevice(device);\n      const look',
        to: '      if (device.pair.device.size > 0) return true;\n      const look',
      },
    ],
  },
  {
    name: '4',
    about: 'a device grows in mid-job',
    favour: 'grown',
    edits: [
      {
        file: 'src/devices/attachment.ts',
        from: 'if (now.size !== before.size)',
        to: 'if (false)',
      },
    ],
  },
  {
    name: '5',
    about: 'a recovery point is mounted in the place of its device',
    favour: 'mount a point',
    edits: [
      {
        file: 'src/backup/prepare/own-devices.ts',
        from: "if (device.kind === 'file') return;",
        to: 'return;',
      },
    ],
  },
  {
    name: '6',
    about: 'labels of ZFS over an older filesystem',
    favour: 'ZFS',
    edits: [
      {
        file: 'src/filesystems/signatures/signatures.ts',
        from: 'for (const offset of await find(regions))',
        to: "for (const offset of type === 'zfs_member' ? [] : await find(regions))",
      },
    ],
  },
  {
    name: '7',
    about: 'two copies of one vault share a local index',
    favour: 'both copies',
    edits: [
      {
        file: 'src/vault/opening.ts',
        from: "createHash('sha256').update(formatVaultLocation(real))",
        to: "createHash('sha256').update('any place')",
      },
      {
        file: 'src/vault/writing/writer-session.ts',
        from: '    await this.#expectStored(point);\n',
        to: '',
      },
    ],
  },
  {
    name: '8',
    about: 'an interrupted restore continues over what was put there since',
    favour: 'interrupt a restore',
    edits: [
      {
        file: 'src/restore/target/to-target.ts',
        from: 'const found = await unfinished.check(destination, signal, onRead);',
        to: 'if (destination !== undefined) return { differs: undefined, nothingRecorded: false };\n          const found = await unfinished.check(destination, signal, onRead);',
      },
    ],
  },
  {
    name: '9',
    about: 'two volumes with one UUID are one retention group',
    favour: 'to vault',
    edits: [
      {
        file: 'src/vault/points/identity.ts',
        from: 'if (identity !== undefined) return { key: JSON.stringify([name, identity]), unclear: undefined };',
        to: 'if (identity !== undefined) return { key: name, unclear: undefined };',
      },
    ],
  },
  {
    name: 'clones',
    about: 'two volumes with one UUID share a chain in a vault',
    favour: '^clone|a to vault and b to vault',
    edits: [
      {
        file: 'src/backup/prepare/open-chain.ts',
        from: "...(hasClone && target.kind === 'vault' ? { cloned: true } : {}),",
        to: '',
      },
    ],
  },
];
