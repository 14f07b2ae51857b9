/**
 * Pairs of device and target on the command line. `--device-pair DEVICE HOST PORT` takes three words, which no
 * option parser knows; `joinPairs` makes one word of them first, so that a missing or an extra word is noticed
 * where it is.
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

/** Rewrites `--device-pair A B C` to `--device-pair A<NUL>B<NUL>C`. Throws BAD_USAGE for fewer words. */
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

/** The pair out of one word that `joinPairs` made. Throws BAD_USAGE naming what is wrong. */
export function parseJoinedPair(joined: string): Pair {
  const [device = '', host = '', port = ''] = joined.split(separator);
  if (device === '') throw new AgentError('BAD_USAGE', 'A device of --device-pair is empty');
  return { device, target: nbdUri(host, port) };
}

/** `nbd://HOST:PORT/`, the default export there. */
export function nbdUri(host: string, port: string): string {
  const bare = host.replace(/^\[(.*)\]$/, '$1');
  if (!isIPv6(bare) && !/^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_.])?$/.test(host))
    throw new AgentError('BAD_USAGE', `"${host}" is no host name and no address`, {
      hint: '--device-pair takes DEVICE HOST PORT; anything else goes with --device and --target',
    });
  if (!/^\d{1,5}$/.test(port) || Number(port) < 1 || Number(port) > 65535)
    throw new AgentError('BAD_USAGE', `"${port}" is no port from 1 to 65535`, {
      hint: '--device-pair takes DEVICE HOST PORT',
    });
  return `nbd://${isIPv6(bare) ? `[${bare.replace('%', '%25')}]` : host}:${Number(port)}/`;
}

/** A target as the daemon wants it: URIs as they are, paths made absolute, since its directory is another. */
export function absoluteTarget(target: string): string {
  return /^[a-z][a-z0-9+.-]*:/i.test(target) ? target : resolve(target);
}

/** Where a device goes of which nothing is said. */
const defaultTarget = 'vault:default';

/**
 * Gathers `--device NAME --target URI` in their order; each device is followed by its target. Where no target is named at
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

  /** All pairs. Throws BAD_USAGE where a device has no target. */
  finish(): Pair[] {
    this.#refuseOpen();
    return this.#pairs;
  }

  /** All pairs, devices that stand alone with the default vault. Throws BAD_USAGE where only some do. */
  finishWithDefault(): Pair[] {
    if (this.#named) return this.finish();
    return this.#open.map((device) => ({ device, target: defaultTarget }));
  }

  /** The one `--device`, or none, where there is nothing to pair it with. Throws BAD_USAGE. */
  onlyDevice(): string | undefined {
    if (this.#named || this.#open.length > 1)
      throw new AgentError('BAD_USAGE', 'A recovery point is named, and targets or several devices, too', {
        hint: 'give a POINT with one --device at most, or devices and targets',
      });
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

/** The options that name devices and targets, gathered in `pairs`. */
export function addPairOptions(
  command: Command,
  pairs: PairList,
  devices = 'this device and the --target that follows; repeatable',
): Command {
  const keep = (add: (value: string) => void) => (value: string) => {
    add(value);
    return value;
  };
  return command
    .addOption(
      new Option(
        '--device-pair <DEVICE HOST PORT>',
        'DEVICE and the NBD server at HOST and PORT; repeatable',
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
