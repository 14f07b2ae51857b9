import assert from 'node:assert/strict';
import { test } from 'node:test';
import { defaultJobOptions } from '../backup/job.ts';
import { defaultConfig, parseConfig, readConfig } from './config.ts';
import { toJobOptions } from './job-options.ts';

test('a missing file gives the defaults, unless the user named it', async () => {
  assert.equal(await readConfig('/no/such/file', false), defaultConfig);
  await assert.rejects(readConfig('/no/such/file', true), {
    code: 'FILE_ERROR',
    message: 'The configuration /no/such/file cannot be read: ENOENT',
  });
});

test('the file sets the options of jobs, and a request overrides it', () => {
  const text =
    '{"job_options":{"max_freeze_ms":2000,"rate":5,"verify":"full","pre_freeze_hook":"/a"},"history_limit":7}';
  const config = parseConfig(text, 'c');
  assert.equal(config.history_limit, 7);
  assert.deepEqual(toJobOptions({ rate: 9 }, config.job_options), {
    ...defaultJobOptions,
    maxFreezeMs: 2000,
    rate: 9,
    verify: 'full',
    preFreezeHook: '/a',
  });
  assert.deepEqual(toJobOptions(), defaultJobOptions);
});

test('null stands for the default of a key, as it always has', () => {
  const text = `{"job_options":null,"vaults":null,"history_limit":null,"reboot_continuity":null,"reboot_record":null}`;
  assert.deepEqual(parseConfig(text, 'c'), defaultConfig);
});

test('a configuration with every key is read as it is', () => {
  const whole = {
    job_options: {
      ...{
        max_freeze_ms: 1,
        rate: 2,
        impact: 'low',
        on_read_error: 'zero',
        connections: 16,
        reconnect_ms: 0,
      },
      ...{ verify: 'none', tracker: 'blktrace', snapshot: 'never', snapshot_size: 4_194_304 },
      ...{ fingerprints: false, fallback: true, trim: true, max_passes: 100 },
      ...{ pre_freeze_hook: '/a', post_thaw_hook: '/b', frozen_hook: '/c' },
    },
    vaults: {
      default: { location: 'vault:/mnt/vault', key_file: '/k', passphrase_file: '/p', compression: 19 },
      'off-site_2': {
        ...{ location: 'vault+s3://s3.example.net:9000/bucket/prefix', credentials_file: '/c', region: 'x' },
        ...{ ca_file: '/ca', insecure: true, rate: 1e20 },
      },
    },
    ...{ history_limit: 100_000, reboot_continuity: false, reboot_record: '/dev/sdx' },
  };
  assert.deepEqual(parseConfig(JSON.stringify(whole), 'c'), whole);
});

test('every error in the file is refused by its name', () => {
  const cases: [string, RegExp][] = [
    ['{', /^c is not JSON/],
    ['[]', /^c is not a JSON object$/],
    ['{"jobs":1}', /^c: unknown key "jobs"$/],
    ['{"history_limit":0}', /"history_limit" is 0, not a whole number from 1 to 100000$/],
    ['{"reboot_continuity":"on"}', /"reboot_continuity" is "on", not true or false$/],
    ['{"reboot_record":"x"}', /"reboot_record" is "x", not an absolute path$/],
    ['{"job_options":[]}', /^c: "job_options" is \[\], not an object$/],
    ['{"job_options":{"max_freeze":1}}', /^c: job_options: unknown key "max_freeze"$/],
    ['{"job_options":{"toString":1}}', /unknown key "toString"$/],
    [
      '{"job_options":{"max_freeze_ms":"2s"}}',
      /"max_freeze_ms" is "2s", not a whole number from 1 to 600000$/,
    ],
    ['{"job_options":{"max_freeze_ms":0}}', /"max_freeze_ms" is 0/],
    ['{"job_options":{"rate":1.5}}', /"rate" is 1.5, not a whole number from 1$/],
    ['{"job_options":{"verify":"all"}}', /"verify" is "all", not one of none, sample, full$/],
    ['{"job_options":{"frozen_hook":"x.sh"}}', /"frozen_hook" is "x.sh", not an absolute path$/],
    [
      '{"vaults":{"a":{"location":"vault:/x","rate":0}}}',
      /^c: vaults: a: "rate" is 0, not a whole number from 1$/,
    ],
    ['{"vaults":{"a":{}}}', /^c: vaults: a: "location" is missing$/],
    ['{"vaults":{"a":{"location":"/x"}}}', /"location" is "\/x", not the location of a vault$/],
    ['{"vaults":{"a":{"location":"vault:b"}}}', /"a" has the name of another vault as its location$/],
    [
      '{"vaults":{"A":{"location":"vault:/x"}}}',
      /^c: vaults: "A" is not a valid name \(a-z, 0-9, _ and -\)$/,
    ],
    ['{"vaults":{"a":{"location":"vault:/x","__proto__":1}}}', /^c: vaults: a: unknown key "__proto__"$/],
    ['{"toString":null}', /^c: unknown key "toString"$/],
  ];
  for (const [text, message] of cases)
    assert.throws(() => parseConfig(text, 'c'), { code: 'BAD_USAGE', message }, text);
});
