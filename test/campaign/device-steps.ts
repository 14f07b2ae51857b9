/** Steps that change the devices: writes of every kind, mounts, formats, growth, foreign signatures. */
import fc from 'fast-check';
import type { Filesystem } from './disk.ts';
import { type Command, type Recorder, step } from './step.ts';

export const anyDisk = fc.constantFrom<'a' | 'b'>('a', 'a', 'a', 'b');
const anySeed = fc.integer({ min: 0, max: 32_767 });
/** Numbers of 4 KiB blocks. */
const anyBlocks = fc.array(fc.integer({ min: 0, max: 12_287 }), { minLength: 1, maxLength: 3 });

export function deviceSteps(recorder: Recorder): fc.Arbitrary<Command>[] {
  const write = fc.tuple(anyDisk, anySeed, fc.boolean()).map(([name, seed, sync]) =>
    step(recorder, {
      kind: 'write files',
      details: `${name} ${seed}${sync ? ' and sync' : ''}`,
      needs: ({ disks }) => disks[name].mounted === 'rw',
      run: ({ disks }) => disks[name].writeFiles(seed, sync),
    }),
  );
  const remove = anyDisk.map((name) =>
    step(recorder, {
      kind: 'remove all files',
      details: name,
      needs: ({ disks }) => disks[name].mounted === 'rw',
      run: ({ disks }) => disks[name].removeFiles(),
    }),
  );
  const trim = anyDisk.map((name) =>
    step(recorder, {
      kind: 'fstrim',
      details: name,
      needs: ({ disks }) => disks[name].mounted === 'rw',
      run: ({ disks }) => disks[name].trim(),
    }),
  );
  const raw = fc.tuple(anyDisk, anyBlocks).map(([name, blocks]) =>
    step(recorder, {
      kind: 'write raw blocks',
      details: `${name} ${blocks.join(' ')}`,
      needs: ({ disks }) => disks[name].mounted === 'no',
      run: ({ disks }) => disks[name].writeRaw(blocks),
    }),
  );
  const mount = fc.tuple(anyDisk, fc.constantFrom<'rw' | 'ro'>('rw', 'rw', 'ro')).map(([name, how]) =>
    step(recorder, {
      kind: `mount ${how}`,
      details: name,
      needs: ({ disks }) => disks[name].mounted === 'no',
      run: async ({ disks }) => {
        const disk = disks[name];
        try {
          await disk.mount(how);
        } catch {
          // The kernel refuses to mount a filesystem that was overwritten.
          await disk.format(disk.content === 'xfs' ? 'xfs' : 'ext4');
          await disk.mount(how);
          return 'formatted first';
        }
        return undefined;
      },
    }),
  );
  const unmount = anyDisk.map((name) =>
    step(recorder, {
      kind: 'unmount',
      details: name,
      needs: ({ disks }) => disks[name].mounted !== 'no',
      run: ({ disks }) => disks[name].unmount(),
    }),
  );
  const remount = anyDisk.map((name) =>
    step(recorder, {
      kind: 'remount',
      details: name,
      needs: ({ disks }) => disks[name].mounted !== 'no',
      run: async ({ disks }) => {
        const how = disks[name].mounted === 'rw' ? 'ro' : 'rw';
        await disks[name].remount(how);
        return how;
      },
    }),
  );
  const format = fc
    .tuple(anyDisk, fc.constantFrom<Filesystem>('ext4', 'xfs'), anySeed)
    .map(([name, type, seed]) =>
      step(recorder, {
        kind: `mkfs ${type}`,
        details: `${name} ${seed}`,
        run: async ({ disks }) => {
          const disk = disks[name];
          const { mounted } = disk;
          await disk.unmount();
          await disk.format(type);
          if (mounted === 'no') return;
          await disk.mount(mounted);
          if (mounted === 'rw') await disk.writeFiles(seed, true);
        },
      }),
    );
  const grow = fc.tuple(anyDisk, fc.boolean()).map(([name, withFilesystem]) =>
    step(recorder, {
      kind: 'grow',
      details: `${name}${withFilesystem ? ' with its filesystem' : ''}`,
      needs: ({ disks }) => disks[name].mayGrow,
      run: ({ disks }) => disks[name].grow(withFilesystem),
    }),
  );
  const tune = fc.tuple(anyDisk, anySeed).map(([name, seed]) =>
    step(recorder, {
      kind: 'tune',
      details: `${name} ${seed}`,
      needs: ({ disks }) => disks[name].content !== 'other',
      run: ({ disks }) => disks[name].tune(seed),
    }),
  );
  const zfs = fc.tuple(anyDisk, anyBlocks).map(([name, blocks]) =>
    step(recorder, {
      kind: 'make it a ZFS member',
      details: `${name} ${blocks.join(' ')}`,
      needs: ({ disks }) => disks[name].content !== 'other',
      run: async ({ disks }) => {
        await disks[name].unmount();
        await disks[name].becomeZfs(blocks);
      },
    }),
  );
  const clone = fc.constant(
    step(recorder, {
      kind: 'clone a to b',
      needs: ({ disks: { a, b } }) => a.size === b.size,
      run: async ({ disks: { a, b } }) => {
        const how = a.mounted;
        await a.unmount();
        await b.unmount();
        await b.cloneOf(a);
        if (how === 'no') return;
        await a.mount(how);
        await b.mount(how);
      },
    }),
  );
  return [
    ...[clone, write, write, write, write, write],
    ...[remove, trim, raw, mount, mount],
    ...[unmount, remount, format, grow, tune, zfs],
  ];
}
