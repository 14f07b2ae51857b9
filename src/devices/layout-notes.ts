/** Notes what could not be read of the machine, and how much time and space is left. */
import { MiB } from '../base/bytes.ts';

/** Milliseconds for everything, including dead disks and programs that hang. */
const longestLook = 30_000;
/** Milliseconds for one step. */
const longestStep = 10_000;
/** Longest length of all texts together, in characters. */
const longestLayout = 4 * MiB;
const mostProblems = 100;

export class LayoutNotes {
  /** Texts for the user. */
  readonly problems: string[] = [];
  readonly #signal: AbortSignal | undefined;
  readonly #end = performance.now() + longestLook;
  #left = longestLayout;

  constructor(signal: AbortSignal | undefined) {
    this.#signal = signal;
  }

  add(problem: string): void {
    if (this.problems.length < mostProblems) this.problems.push(problem);
  }

  /** Returns the result of the work, or `instead` if it fails or takes too long. Throws only the signal's reason. */
  async attempt<T>(what: string, work: () => Promise<T>, instead: T): Promise<T> {
    this.#signal?.throwIfAborted();
    const ms = Math.min(longestStep, this.#end - performance.now());
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('no answer in time')), Math.max(0, ms));
    });
    try {
      return await Promise.race([ms > 0 ? work() : late, late]);
    } catch (error) {
      this.#signal?.throwIfAborted();
      this.add(`${what}: ${error instanceof Error ? error.message : String(error)}`);
      return instead;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Returns the text, or an empty text if there is no space for all of it: half a text would be worse. */
  bounded(what: string, text: string, most = longestLayout): string {
    const room = Math.min(most, this.#left);
    if (text.length > room) {
      this.add(`${what}: ${text.length} characters, and there is room for ${room}`);
      return '';
    }
    this.#left -= text.length;
    return text;
  }
}
