import assert from 'node:assert/strict';
import { test } from 'node:test';
import { continuityOf, parseUnits, readContinuity, type UnitState } from './armed.ts';

function unit(name: string, file: string, active = 'inactive', result = 'success'): UnitState {
  return { Id: `dattod-${name}.service`, UnitFileState: file, ActiveState: active, Result: result };
}

function said(units: readonly UnitState[], more: { recordDevice?: boolean; hook?: boolean } = {}): string {
  const { armed, why, help } = continuityOf({ units, recordDevice: false, hook: false, ...more });
  return `${armed ? 'yes' : 'no'}: ${why} | ${help ?? 'nothing'}`;
}

test('the states of units are read, also of units that systemd does not know', () => {
  const text =
    'Id=dattod-early.service\nLoadState=loaded\nActiveState=active\nUnitFileState=enabled\nResult=success\n\n' +
    'Id=dattod-save.service\nLoadState=not-found\nActiveState=inactive\nUnitFileState=\nResult=success\n';
  const [early, save] = parseUnits(text);
  assert.equal(early!['ActiveState'], 'active');
  assert.deepEqual([save!['Id'], save!['UnitFileState']], ['dattod-save.service', '']);
});

test('the states of the units decide whether tracking continues over the next reboot', () => {
  const save = unit('save', 'enabled');
  const noSave = unit('save', '');
  const early = unit('early', 'enabled', 'active');
  const root = unit('early-root', 'enabled', 'active');
  assert.match(said([early, save]), /^yes: the next clean shutdown is recorded and used \| nothing$/);
  // The unit is enabled but not started, so the shutdown itself starts dattod-save.
  assert.match(said([unit('early', 'enabled'), save]), /^yes: .* \| nothing$/);
  assert.match(
    said([unit('early', 'enabled'), noSave]),
    /^no: .* was not started in this boot, and .* not recorded \| systemctl enable dattod-save\.service$/,
  );
  assert.match(
    said([unit('early', 'enabled', 'failed', 'timeout'), noSave]),
    /^no: dattod-early\.service failed in this boot \(timeout\), and dattod-save\.service is not enabled/,
  );
  assert.match(
    said([unit('early', 'enabled', 'failed', 'timeout'), save]),
    /^yes: .*; dattod-early\.service failed in this boot \(timeout\) \| journalctl -b -u dattod-early\.service$/,
  );
  assert.match(said([early, noSave]), /^yes: .*only while dattod-early\.service is active/);
  assert.match(said([unit('early', 'disabled', 'active'), save]), /^no: .* no enabled unit uses the record/);
  assert.match(said([unit('early', ''), noSave]), /^no: the units .* systemctl enable --now dattod-early\./);
  assert.match(
    said([unit('early', ''), noSave], { recordDevice: true }),
    /systemctl enable --now dattod-early-root\./,
  );
  assert.match(
    said([early, save], { recordDevice: true }),
    /^yes: .*; root is not: it needs dattod-early-root/,
  );
  assert.match(
    said([root, save], { recordDevice: true }),
    /^yes: .*; root is not: the hook is missing \| install/,
  );
  assert.match(said([root, save], { recordDevice: true, hook: true }), /^yes: [^;]* \| nothing$/);
});

test('if the configuration turns continuity off, the units are not read', async () => {
  const { armed, why, help } = await readContinuity(false, '/no/such/place');
  assert.deepEqual([armed, help], [false, null]);
  assert.match(why, /"reboot_continuity": false/);
});
