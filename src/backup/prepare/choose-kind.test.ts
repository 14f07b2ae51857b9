import assert from 'node:assert/strict';
import test from 'node:test';
import type { ChainRecord, ChainSubject } from '../../tracking/chain.ts';
import { type PlanFacts, chooseKind } from './choose-kind.ts';

const subject: ChainSubject = {
  uuid: 'u',
  path: '/dev/sda1',
  size: 1000,
  partitionStart: 0,
  target: 'nbd://host/image',
};
const epoch = { id: 'one', since: 0 };
const record: ChainRecord = {
  ...subject,
  version: 1,
  id: 'chain',
  key: '00',
  targetSize: 2000,
  state: 'complete',
  epoch,
  generations: ['aa'],
  tracker: 'ebpf',
  job: 'job',
  completedAt: '',
};
const good: PlanFacts = {
  wanted: 'incremental',
  subject,
  record,
  unknown: 'nothing is recorded',
  targetSize: 2000,
  drift: undefined,
  tracked: { epoch, generation: 'aa', doubt: undefined },
  untracked: '',
};

test('the requested kind is used if nothing is uncertain', () => {
  for (const wanted of ['full', 'incremental', 'differential'] as const)
    assert.deepEqual(chooseKind({ ...good, wanted }), { kind: wanted, reason: null });
});

test('an incremental becomes a differential if writes may have been missed', () => {
  const cases: [Partial<PlanFacts>, RegExp][] = [
    [{ tracked: undefined, untracked: 'no tracing in this kernel' }, /^no tracing in this kernel$/],
    [{ record: { ...record, epoch: null } }, /nothing tracked the device at the last backup/],
    [{ tracked: { epoch: { id: 'two', since: 1 }, generation: 'aa', doubt: undefined } }, /started again/],
    [
      { tracked: { epoch: { id: 'two', since: 1 }, generation: 'aa', doubt: 'another boot' } },
      /^another boot$/,
    ],
    [{ subject: { ...subject, partitionStart: 512 } }, /begins at 512 now and began at 0/],
  ];
  for (const [change, reason] of cases) {
    const plan = chooseKind({ ...good, ...change });
    assert.equal(plan.kind, 'differential');
    assert.match(plan.reason ?? '', reason);
  }
});

test('a record of another generation than the map gives a differential that reads the target first', () => {
  const old = { ...record };
  delete (old as { generations?: unknown }).generations;
  const cases: [PlanFacts['record'], RegExp][] = [
    [record, /generation aa, the tracker has cc/],
    [{ ...record, generations: ['aa', 'bb'] }, /generation aa or bb, the tracker has cc/],
    [{ ...record, generations: [] }, /generation none, the tracker has cc/],
    [old, /generation none, the tracker has cc/],
  ];
  const tracked = { epoch, generation: 'cc', doubt: undefined };
  for (const [found, reason] of cases) {
    const plan = chooseKind({ ...good, record: found, tracked });
    assert.deepEqual([plan.kind, plan.readTarget], ['differential', true]);
    const asked = chooseKind({ ...good, wanted: 'differential', record: found, tracked });
    assert.deepEqual(asked, { kind: 'differential', reason: null, readTarget: true });
    assert.match(plan.reason ?? '', reason);
  }
  for (const generations of [['cc'], ['bb', 'cc'], ['cc', 'dd']])
    assert.equal(chooseKind({ ...good, record: { ...record, generations }, tracked }).kind, 'incremental');
});

test('any kind becomes a full backup if the content of the target is not known', () => {
  const cases: [Partial<PlanFacts>, RegExp][] = [
    [{ record: undefined }, /^nothing is recorded$/],
    [{ record: { ...record, state: 'incomplete' } }, /completed yet/],
    [{ subject: { ...subject, size: 1500 } }, /the device has 1500 bytes now and had 1000/],
    [{ targetSize: 3000 }, /the target has 3000 bytes now and had 2000/],
    [{ drift: 'it was rolled back' }, /^it was rolled back$/],
  ];
  for (const wanted of ['incremental', 'differential'] as const)
    for (const [change, reason] of cases) {
      const plan = chooseKind({ ...good, wanted, ...change });
      assert.equal(plan.kind, 'full');
      assert.match(plan.reason ?? '', reason);
    }
});
