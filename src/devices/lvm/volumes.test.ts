import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findRoom, freezesNest } from './room.ts';
import { thickUsage, thinUsage } from './snapshot-usage.ts';
import { dmUuidOf, parseVolumes, volumeUuid, type Volume } from './volumes.ts';

const MiB = 1 << 20;

/** Output of lvm2 2.03.16, with the columns that are requested. */
const row = (name: string, changes: Readonly<Record<string, string>>): Record<string, string> => ({
  lv_name: name,
  lv_uuid: 'RNeNB0-OSW3-Zi0i-2usq-WiFF-j3ee-k6Lyxv',
  lv_size: '67108864',
  segtype: 'linear',
  lv_attr: '-wi-ao----',
  pool_lv: '',
  data_percent: '',
  metadata_percent: '',
  lv_dm_path: `/dev/mapper/vg-${name}`,
  vg_name: 'vg',
  vg_uuid: 'pFi7E9-5JcP-omyp-e3ij-ltAl-Vi6n-hyn1Cr',
  vg_free: '255852544',
  vg_extent_size: '4194304',
  vg_shared: '',
  vg_clustered: '',
  vg_exported: '',
  vg_partial: '',
  ...changes,
});
const report = (...rows: readonly object[]): string => JSON.stringify({ report: [{ lv: rows }] });
const volume = (changes: Readonly<Record<string, string>>): Volume =>
  parseVolumes(report(row('a', changes)))[0]!;

test('a report of lvs is parsed: numbers, brackets of hidden volumes, UUIDs as in the kernel', () => {
  const [plain, pool, spare] = parseVolumes(
    report(
      row('a', {}),
      row('pool', {
        segtype: 'thin-pool',
        data_percent: '3.76',
        metadata_percent: '10.94',
        lv_attr: 'twi-aot---',
      }),
      row('[lvol0_pmspare]', { vg_partial: 'partial' }),
    ),
  );
  assert.deepEqual(
    [plain?.size, plain?.groupFree, plain?.extentSize, plain?.dataPercent, plain?.trouble],
    [64 * MiB, 255852544, 4 * MiB, undefined, ''],
  );
  assert.equal(dmUuidOf(plain!), 'LVM-pFi7E95JcPomype3ijltAlVi6nhyn1CrRNeNB0OSW3Zi0i2usqWiFFj3eek6Lyxv');
  assert.deepEqual([pool?.dataPercent, pool?.metadataPercent], [3.76, 10.94]);
  assert.deepEqual([spare?.name, spare?.trouble], ['lvol0_pmspare', 'lacks a disk']);
  assert.throws(() => parseVolumes('no report'), SyntaxError);
});

test('only the device of a whole volume counts, not a part of one', () => {
  const uuid = `LVM-${'a'.repeat(64)}`;
  assert.equal(volumeUuid(uuid), uuid);
  for (const other of [`${uuid}-real`, `${uuid}-tpool`, `CRYPT-${'a'.repeat(64)}`, '', undefined])
    assert.equal(volumeUuid(other), undefined);
});

const thickCases: readonly {
  readonly name: string;
  readonly volume: Readonly<Record<string, string>>;
  readonly wanted?: number;
  /** Number of extents of 4 MiB, or the reason. */
  readonly expected: number | RegExp;
}[] = [
  { name: 'a small volume gets no more than it can fill', volume: {}, expected: 18 },
  { name: 'a group with less free space gives less', volume: { vg_free: String(20 * MiB) }, expected: 5 },
  { name: 'a full group gives nothing', volume: { vg_free: '0' }, expected: /has 0 B free.*needs 16/ },
  { name: 'the wanted size', volume: {}, wanted: 30 * MiB, expected: 8 },
  { name: 'a wanted size above what the volume can fill', volume: {}, wanted: 900 * MiB, expected: 18 },
  {
    name: 'a wanted size that the group does not have',
    volume: { vg_free: String(20 * MiB) },
    wanted: 30 * MiB,
    expected: /needs 30/,
  },
  {
    name: 'a large volume gets a tenth',
    volume: { lv_size: String(100_000 * MiB), vg_free: String(50_000 * MiB) },
    expected: 2500,
  },
  {
    name: 'a large volume needs at least a hundredth',
    volume: { lv_size: String(100_000 * MiB), vg_free: String(996 * MiB) },
    expected: /needs 1000/,
  },
  { name: 'an origin of other snapshots', volume: { lv_attr: 'owi-aos---' }, expected: 18 },
  { name: 'a snapshot', volume: { lv_attr: 'swi-aos---' }, expected: /no snapshot can be taken of vg\/a/ },
  { name: 'a pool', volume: { lv_attr: 'twi-aot---', segtype: 'thin-pool' }, expected: /no snapshot/ },
  { name: 'a shared group', volume: { vg_shared: 'shared' }, expected: /vg is shared between machines/ },
];

for (const { name, volume: changes, wanted, expected } of thickCases)
  test(`room for a thick snapshot: ${name}`, () => {
    const one = volume(changes);
    const room = findRoom([one], one, wanted);
    if (typeof expected === 'number') {
      assert.ok(!('why' in room), JSON.stringify(room));
      assert.deepEqual([room.kind, room.extents], ['thick', expected]);
    } else assert.match('why' in room ? room.why : '', expected);
  });

test('the space for a thin snapshot is the free space of its pool', () => {
  const thin = volume({ segtype: 'thin', lv_attr: 'Vwi-aot---', pool_lv: 'pool' });
  const roomOf = (pool: Readonly<Record<string, string>>) => {
    const volumes = parseVolumes(
      report(row('pool', { segtype: 'thin-pool', lv_size: String(128 * MiB), ...pool })),
    );
    return findRoom(volumes, thin, undefined);
  };
  const room = roomOf({ data_percent: '50.00', metadata_percent: '10.00' });
  assert.ok(!('why' in room));
  assert.deepEqual([room.kind, room.pool?.name], ['thin', 'pool']);
  const why = (pool: Readonly<Record<string, string>>): string => {
    const refused = roomOf(pool);
    return 'why' in refused ? refused.why : '';
  };
  assert.match(why({ data_percent: '95.00', metadata_percent: '10.00' }), /pool has 6\.40 MiB free/);
  assert.match(why({ data_percent: '5.00', metadata_percent: '95.00' }), /95 % of the metadata/);
  assert.match(why({ vg_name: 'other' }), /pool of vg\/a was not found/);
});

test('freezes can nest since Linux 6.8', () => {
  const releases = [
    '5.10.0-46-amd64',
    '6.1.0',
    '6.7.12',
    '6.8.0',
    '6.12.117+deb12-amd64',
    '7.0',
    '10.1',
    'odd',
  ];
  assert.deepEqual(releases.map(freezesNest), [false, false, false, true, true, true, true, false]);
});

test('a thick snapshot that is full, invalid, overflowed or gone cannot be used', () => {
  assert.deepEqual(thickUsage('0 131072 snapshot 24/32768 16'), {
    used: 24 * 512,
    size: 16 * MiB,
    over: undefined,
  });
  assert.equal(thickUsage('0 131072 snapshot 32768/32768 16').over, 'it is full');
  assert.equal(thickUsage('0 131072 snapshot Invalid').over, 'it is invalid');
  assert.equal(thickUsage('0 131072 snapshot Overflow').over, 'it is overflow');
  assert.equal(thickUsage('').over, 'it is gone');
});

test('a thin pool that is nearly full, out of space, read-only or failed ends the snapshot', () => {
  const pool = (data: number, metadata = 112, mode = 'rw'): string =>
    `0 262144 thin-pool 1 ${metadata}/1024 ${data}/2048 - ${mode} discard_passdown queue_if_no_space - 256`;
  assert.deepEqual(thinUsage(pool(1024)), { used: 64 * MiB, size: 128 * MiB, over: undefined });
  assert.equal(thinUsage(pool(2010)).over, 'its pool is nearly full');
  assert.match(thinUsage(pool(10, 1020)).over ?? '', /1020 of 1024 blocks of metadata/);
  assert.equal(thinUsage(pool(2048, 112, 'out_of_data_space')).over, 'its pool is out of data space');
  assert.equal(thinUsage('0 262144 thin-pool Fail').over, 'its pool has failed');
  assert.equal(thinUsage('').over, 'its pool has failed');
});
