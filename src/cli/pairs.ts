/**
 * Pairs of device and target on the command line. `--device-pair DEVICE HOST PORT` takes three words, which no
 * option parser supports. `joinPairs` makes one word of them first, so that the error for a missing or an extra word
 * names the right option.
 */
import { type Command, Option } from 'commander';
import { isIPv6 } from 'node:net';
import { resolve } from 'node:path';
import { AgentError } from '../base/errors.ts';

export interface Pair {
  device: string;
  target: string;
}

const pairOptions = ['--device-pair', '--vector'];
const separator = '\u0000';

/** Rewrites `--device-pair A B C` to `--device-pair A<NUL>B<NUL>C`. Throws BAD_USAGE if a word is missing. */
export function joinPairs(args: readonly string[]): string[] {
  const joined: string[] = [];
  for (let at = 0; at < args.length; at++) {
    const word = args[at]!;
    if (word === '--') return [...joined, ...args.slice(at)];
    const option = pairOptions.find((each) => word === each || word.startsWith(`${each}=`));
    if (option === undefined) {
      joined.push(word);
      continue;
    }
    const words = word === option ? [] : [word.slice(option.length + 1)];
    while (words.length < 3 && at + 1 < args.length && !args[at + 1]!.startsWith('-'))
      words.push(args[++at]!);
    if (words.length < 3)
      throw new AgentError('BAD_USAGE', `${option} needs DEVICE HOST PORT, but has "${words.join(' ')}"`, {
        hint: 'see dattocli startbackup --help',
      });
    joined.push(option, words.join(separator));
  }
  return joined;
}

/** Parses a word that `joinPairs` made. Throws BAD_USAGE. */
export function parseJoinedPair(joined: string): Pair {
  const [device = '', host = '', port = ''] = joined.split(separator);
  if (device === '') throw new AgentError('BAD_USAGE', 'The device of a --device-pair is empty');
  return { device, target: nbdUri(host, port) };
}

/** Returns `nbd://HOST:PORT/`, the URI of the default export. */
export function nbdUri(host: string, port: string): string {
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  if (!isIPv6(bare) && !/^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_.])?$/.test(host))
    throw new AgentError('BAD_USAGE', `"${host}" is neither a host name nor an address`, {
      hint: '--device-pair takes DEVICE HOST PORT; use --device and --target for other targets',
    });
  if (!/^\d{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65535)
    throw new AgentError('BAD_USAGE', `"${port}" is not a port from 1 to 65535`, {
      hint: '--device-pair takes DEVICE HOST PORT',
    });
  return `nbd://${isIPv6(bare) ? `[${bare.replace('%', '%25')}]` : host}:${Number(port)}/`;
}

/** Returns URIs as they are and makes paths absolute: the daemon has a different working directory. */
export function absoluteTarget(target: string): string {
  return /^[a-z][a-z0-9+.-]*:/i.test(target) ? target : resolve(target);
}

/** The target of devices that are named without one. */
const defaultTarget = 'vault:default';

/**
 * Collects `--device NAME --target URI` in their order; each device is followed by its target. If no target is named at
 * all, devices go to the default vault.
 */
export class PairList {
  readonly #pairs: Pair[] = [];
  #open: string[] = [];
  #named = false;

  addPair(joined: string): void {
    this.#refuseOpen();
    this.#named = true;
    this.#pairs.push(parseJoinedPair(joined));
  }

  addDevice(device: string): void {
    if (this.#named) this.#refuseOpen();
    this.#open.push(device);
  }

  addTarget(target: string): void {
    const [device, another] = this.#open;
    if (another !== undefined) this.#refuseOpen();
    if (device === undefined)
      throw new AgentError('BAD_USAGE', `--target ${target} has no --device before it`, {
        hint: 'write --device NAME --target URI for each device',
      });
    this.#named = true;
    this.#pairs.push({ device, target: absoluteTarget(target) });
    this.#open = [];
  }

  /** Returns all pairs. Throws BAD_USAGE if a device has no target. */
  finish(): Pair[] {
    this.#refuseOpen();
    return this.#pairs;
  }

  /** Returns all pairs. If no device has a target, the default vault is. Throws BAD_USAGE if only some have one. */
  finishWithDefault(): Pair[] {
    if (this.#named) return this.finish();
    return this.#open.map((device) => ({ device, target: defaultTarget }));
  }

  /** Returns the one `--device`, or undefined without any. Throws BAD_USAGE for several devices or a target. */
  onlyDevice(): string | undefined {
    if (this.#named || this.#open.length > 1)
      throw new AgentError(
        'BAD_USAGE',
        'Targets or several devices cannot be combined with a recovery point',
        {
          hint: 'give a POINT and at most one --device, or give devices and targets',
        },
      );
    return this.#open[0];
  }

  #refuseOpen(): void {
    const [device] = this.#open;
    if (device !== undefined)
      throw new AgentError('BAD_USAGE', `--device ${device} has no --target after it`, {
        hint: 'write --device NAME --target URI for each device',
      });
  }
}

/** Adds the options that name devices and targets; `pairs` collects their values. */
export function addPairOptions(
  command: Command,
  pairs: PairList,
  devices = 'a device; its --target follows; repeatable',
): Command {
  const keep = (add: (value: string) => void) => (value: string) => {
    add(value);
    return value;
  };
  return command
    .addOption(
      new Option(
        '--device-pair <DEVICE HOST PORT>',
        'a device and the NBD server at HOST and PORT; repeatable',
      ).argParser(keep((value) => pairs.addPair(value))),
    )
    .addOption(
      new Option('--vector <DEVICE HOST PORT>', 'the same as --device-pair').argParser(
        keep((value) => pairs.addPair(value)),
      ),
    )
    .option(
      '--device <name>',
      devices,
      keep((value) => pairs.addDevice(value)),
    )
    .option(
      '--target <uri>',
      'nbd://, nbds://, nbd+unix://, nbds+unix://, vault:NAME, vault:/path, vault+s3://, or the path of a file or device',
      keep((value) => pairs.addTarget(value)),
    );
}
