import assert from 'node:assert/strict';
import { mkdtempSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { pidNamespace } from '../../linux/process.ts';
import { type Owner, stateOf, thisProcess } from './owner.ts';

test('this process is found alive, and an ended process is found gone', async () => {
  const here = await thisProcess();
  assert.match(here.pid_namespace ?? '', /^pid:\[\d+\]$/);
  const from = (): Promise<Owner> => Promise.resolve({ ...here, machine: 'm' });
  const state = (other: Partial<Owner>): Promise<string> =>
    stateOf({ ...here, machine: 'm', ...other }, from);
  assert.equal(await state({}), 'unknown');
  assert.equal(await state({ pid: 2 ** 30 }), 'gone');
  assert.equal(await state({ start_time: here.start_time + 1 }), 'gone');
  assert.equal(await state({ boot: 'another' }), 'rebooted');
  assert.equal(await state({ machine: 'another' }), 'unknown');
});

test('for a process in another PID namespace of this boot, only its heartbeat counts', async () => {
  const here = { ...(await thisProcess()), machine: 'm' };
  const gone = { ...here, pid: 2 ** 30 };
  const { host, machine, boot, pid, start_time } = gone;
  const ofEarlierVersion = { host, machine, boot, pid, start_time };
  const from = (namespace: string) => (): Promise<Owner> =>
    Promise.resolve({ ...here, pid_namespace: namespace });
  assert.equal(await stateOf({ ...gone, pid_namespace: 'pid:[1]' }, from('pid:[2]')), 'unknown');
  assert.equal(await stateOf({ ...gone, pid_namespace: 'pid:[1]' }, from('')), 'unknown');
  assert.equal(await stateOf({ ...gone, pid_namespace: '' }, from('')), 'unknown');
  assert.equal(await stateOf(ofEarlierVersion, from('pid:[2]')), 'unknown');
  assert.equal(await stateOf({ ...gone, pid_namespace: 'pid:[1]' }, from('pid:[1]')), 'gone');
});

test('a /proc that shows the PIDs of another namespace is not used', async (t) => {
  const proc = mkdtempSync(join(tmpdir(), 'proc-'));
  t.after(() => rmSync(proc, { recursive: true }));
  mkdirSync(join(proc, 'self/ns'), { recursive: true });
  symlinkSync('pid:[4026531836]', join(proc, 'self/ns/pid'));
  const says = async (status: string): Promise<string> => {
    writeFileSync(join(proc, 'self/status'), status);
    return pidNamespace(proc);
  };
  assert.equal(await says('Pid:\t17\nNSpid:\t17\nThreads:\t1\n'), 'pid:[4026531836]');
  assert.equal(await says('Pid:\t17\nNSpid:\t17\t1\nThreads:\t1\n'), '');
  assert.equal(await says('Pid:\t17\n'), '');
  assert.equal(await pidNamespace(join(proc, 'nothing')), '');
});
