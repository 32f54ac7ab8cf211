/**
 * Runs controls and records their outcomes. A control is void where it cannot have an effect: the exchanged blocks are
 * equal, or an input of the stage is all zeros. A void control is tried again in the next layer of its kind, and the result
 * is void only when it is void in all of them. A control that could have an effect and is not detected is a miss.
 */
import type { Tensor } from "../../core/checkpoint.ts";
import { countOf } from "../../core/dtype.ts";
import type { ModelRunner } from "../../inference/runner.ts";
import {
  ATTEMPTS,
  type ControlAttempt,
  type ControlTarget,
  type Exchange,
  replacementsFor,
} from "./swaps.ts";

/** The outcome of a control. */
export interface Control {
  readonly layer: number;
  readonly kind: string;
  readonly door: string;
  /** description of the fault */
  readonly mutation: string;
  /** whether the comparison detected the fault; null: the control is void in every layer of the kind */
  readonly caught: boolean | null;
  /** why the control is void in this layer; missing where it is not void */
  readonly void?: "equal blocks" | "zero input";
  /** the fault exchanged blocks of a matrix of a layer; vectors, the token table and the head alone prove little */
  readonly matrix: boolean;
}

/** Where controls run. */
export interface ControlSite {
  readonly layer: number;
  readonly kind: string;
  /** largest relative L2 of a correct door */
  readonly limit: number;
  /** equal in all layers of a kind: a control that is void in one layer is tried again in the next */
  readonly slot: string;
  /** streams that are all zeros and may be */
  readonly expectedZeros: ReadonlySet<string>;
}

/** A control and the inputs that it needs: where one of them is all zeros, the control is void. */
interface TargetWithInputs extends ControlTarget {
  readonly needs: readonly string[];
}

/** Runs a stage with replaced tensors; the results measure the distance at a door. */
export interface ControlRun {
  all(replacements: ReadonlyMap<string, Tensor>): Promise<DistanceAt>;
  /** computes only some of the outputs that the exchanges change: what they show, all outputs show too */
  few?(replacements: ReadonlyMap<string, Tensor>, swaps: readonly Exchange[]): Promise<DistanceAt>;
}

type DistanceAt = (door: string) => Promise<number>;

/** The state of a control. */
interface Slot {
  /** index in the results */
  readonly index: number;
  /** void in all layers so far */
  readonly open: boolean;
}

/** Between two layers. */
export interface TrialsState {
  readonly results: readonly Control[];
  /** by the slot of the stage and the number of the control */
  readonly slots: Readonly<Record<string, Slot>>;
}

type Outcome = Pick<Control, "caught" | "void">;
const ZERO_INPUT: Outcome = { caught: null, void: "zero input" };
const EQUAL_BLOCKS: Outcome = { caught: null, void: "equal blocks" };

export class ControlTrials {
  readonly results: Control[] = [];
  readonly #slots = new Map<string, Slot>();
  /** slot of a stage -> whether one of its controls is still void */
  readonly #stages = new Map<string, boolean>();
  /** number of controls of the present stage so far */
  #turn = 0;
  readonly #runner: ModelRunner;

  /** @param runner runner of the destination */
  constructor(runner: ModelRunner) {
    this.#runner = runner;
  }

  get state(): TrialsState {
    return { results: [...this.results], slots: Object.fromEntries(this.#slots) };
  }

  /** Goes on with the state of other trials. */
  restore({ results, slots }: TrialsState): void {
    this.results.push(...results);
    for (const [key, slot] of Object.entries(slots)) this.#slots.set(key, slot);
    for (const key of this.#slots.keys()) this.finishStage(key.slice(0, key.lastIndexOf("/")));
  }

  /** Whether the controls of a stage must run: they have not run yet, or some were void in every layer so far. */
  wants(slot: string): boolean {
    return this.#stages.get(slot) ?? true;
  }

  startStage(): void {
    this.#turn = 0;
  }

  finishStage(slot: string): void {
    const open = [...this.#slots].some(([key, control]) => control.open && key.startsWith(`${slot}/`));
    this.#stages.set(slot, open);
  }

  /**
   * Tries the attempts of each target until the comparison detects a fault or no attempt is left. One run has the first
   * attempts of all targets, the next run the second attempts, and so on.
   *
   * @param matrix the targets are matrices of a layer
   * @param run    runs the stage with replaced tensors
   */
  async run(
    site: ControlSite,
    matrix: boolean,
    targets: readonly TargetWithInputs[],
    run: ControlRun,
  ): Promise<void> {
    const { limit, layer, kind, expectedZeros } = site;
    const note = (key: string, { door }: ControlTarget, { mutation }: ControlAttempt, outcome: Outcome) =>
      this.#note(key, { layer, kind, door, mutation, ...outcome, matrix });
    let open: { readonly key: string; readonly target: ControlTarget }[] = [];
    for (const target of targets) {
      const key = `${site.slot}/${this.#turn++}`;
      const before = this.#slots.get(key);
      const [first] = target.attempts;
      if (first === undefined || before?.open === false) continue;
      if (target.needs.some((name) => expectedZeros.has(name))) note(key, target, first, ZERO_INPUT);
      else if (before === undefined) open.push({ key, target });
      else {
        // a control was rarely void only because of zeros: attempts without effect in this layer are not worth a run
        const attempts = await this.#withEffect(target.attempts);
        if (attempts.length > 0) open.push({ key, target: { ...target, attempts } });
      }
    }
    for (let i = 0; i < ATTEMPTS; i++) {
      const tried = open.filter(({ target }) => i < target.attempts.length);
      if (tried.length === 0) break;
      const swaps = tried.flatMap(({ target }) => target.attempts[i]!.swaps);
      const replacements = replacementsFor(swaps);
      const caught = new Set<string>();
      for (const few of run.few === undefined ? [false] : [true, false]) {
        const left = tried.filter(({ key }) => !caught.has(key));
        if (left.length === 0) break;
        const distanceAt = few ? await run.few!(replacements, swaps) : await run.all(replacements);
        for (const { key, target } of left) {
          if ((await distanceAt(target.door)) <= limit) continue;
          caught.add(key);
          note(key, target, target.attempts[i]!, { caught: true });
        }
      }
      open = open.filter(({ key }) => !caught.has(key));
    }
    for (const { key, target } of open) {
      const [missed] = await this.#withEffect(target.attempts.slice(0, ATTEMPTS));
      if (missed === undefined) note(key, target, target.attempts[0]!, EQUAL_BLOCKS);
      else note(key, target, missed, { caught: false });
    }
  }

  /** Records an outcome. A control that is void in two layers keeps the result of the first layer. */
  #note(key: string, control: Control): void {
    const before = this.#slots.get(key);
    const open = control.caught === null;
    if (before === undefined) {
      this.#slots.set(key, { index: this.results.length, open });
      this.results.push(control);
    } else if (!open) {
      this.#slots.set(key, { index: before.index, open });
      this.results[before.index] = control;
    }
  }

  /** The attempts that exchange blocks with different values. */
  async #withEffect(attempts: readonly ControlAttempt[]): Promise<readonly ControlAttempt[]> {
    const found: ControlAttempt[] = [];
    for (const attempt of attempts) {
      for (const swap of attempt.swaps) {
        if (await this.#hasNoEffect(swap)) continue;
        found.push(attempt);
        break;
      }
    }
    return found;
  }

  async #hasNoEffect(swap: Exchange): Promise<boolean> {
    const runner = this.#runner;
    if ("with" in swap) return runner.alike(swap.of, 0, swap.with, 0, countOf(swap.of.shape));
    const { of, exchange } = swap;
    const { axis, a, b, count } = exchange;
    const rows = of.shape[0]!;
    const perRow = countOf(of.shape) / rows;
    if (axis === 0) return runner.alike(of, a * perRow, of, b * perRow, count * perRow);
    for (let row = 0; row < rows; row++) {
      if (!(await runner.alike(of, row * perRow + a, of, row * perRow + b, count))) return false;
    }
    return true;
  }
}
