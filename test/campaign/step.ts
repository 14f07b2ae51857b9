/** One step of a history, in the form of fast-check's model runner. */
import type fc from 'fast-check';
import type { RightImage } from './judge.ts';
import type { World } from './world.ts';

export type Command = fc.AsyncCommand<World, World>;

export interface Recorder {
  /** `kind`: for counting; `details`: the rest of its name; `said`: its result for the log. */
  step(kind: string, details: string, said: string | undefined, ms: number): void;
  /** Gets each image that proved right. */
  image(image: RightImage): void;
}

export interface StepParts {
  readonly kind: string;
  readonly details?: string;
  /** Returns true if the step is possible now. Default: always. */
  readonly needs?: (world: World) => boolean;
  /** May return words for the log. */
  readonly run: (world: World) => Promise<unknown>;
}

export function step(recorder: Recorder, { kind, details = '', needs, run }: StepParts): Command {
  const name = `${kind} ${details}`.trim();
  return {
    check: (world) => needs?.(world as World) ?? true,
    run: async (_model, world) => {
      const began = performance.now();
      const said = await run(world).catch((cause: unknown) => {
        throw new Error(`${name}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
      });
      recorder.step(kind, details, typeof said === 'string' ? said : undefined, performance.now() - began);
    },
    toString: () => name,
  };
}
