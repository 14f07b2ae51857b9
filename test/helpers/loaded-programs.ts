/** What bpftool says that the kernel holds of BPF; Debian package bpftool. */
import { exec } from './exec.ts';

export interface LoadedPrograms {
  /** Names of programs, maps and (by their programs) links that are ours. */
  readonly programs: readonly string[];
  readonly maps: readonly string[];
  readonly links: readonly number[];
}

interface Entry {
  readonly id: number;
  readonly name?: string;
  readonly prog_id?: number;
}

/** Those whose names begin with `dattod_`, of all daemons of the machine. */
export async function loadedPrograms(): Promise<LoadedPrograms> {
  const list = async (what: string): Promise<Entry[]> =>
    JSON.parse((await exec('bpftool', ['-j', what, 'show'])).stdout) as Entry[];
  const own = (entries: readonly Entry[]) => entries.filter(({ name }) => name?.startsWith('dattod_'));
  const programs = own(await list('prog'));
  const ids = programs.map(({ id }) => id);
  return {
    programs: programs.map(({ name }) => name!),
    maps: own(await list('map')).map(({ name }) => name!),
    links: (await list('link')).map(({ prog_id: program }) => program ?? 0).filter((id) => ids.includes(id)),
  };
}
