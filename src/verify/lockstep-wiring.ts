/**
 * The wiring of two models: compares two runs at every door (stream). Both runs have the same inputs and the same values of
 * weights, so a distance above the limit means that the destination's tensors are not connected as in the source.
 */
import { relL2, sameBits } from "../core/distance.ts";
import type { Stage } from "../families/forward.ts";
import type { Streams } from "../inference/activations.ts";
import type { ExpertRun } from "../inference/expert-rows.ts";
import type { LockstepState } from "./lockstep-state.ts";

/**
 * A stream at which the wiring exceeded its limit. Layer -1 is the embedding; the head comes after the last main layer, and
 * prediction layers come after the head.
 */
export interface BadDoor {
  readonly layer: number;
  readonly kind: string;
  readonly door: string;
  readonly relL2: number;
  /** the destination's tensors that make this stream */
  readonly tensors: readonly string[];
}

/** The layer of a door. */
export type DoorLayer = Pick<BadDoor, "layer" | "kind">;

export class WiringComparison {
  readonly #expected: Streams;
  readonly #destination: Streams;
  readonly #widths: Readonly<Record<string, number>>;
  /** largest distance, and largest limit, of all doors so far */
  readonly measures = { maxRelL2: 0, limit: 0 };
  /** in order of execution */
  readonly bad: BadDoor[] = [];
  /** streams in which the destination has the same bits as `recastSource` */
  readonly #equal = new Set<string>();
  /** streams of `recastSource` that are all zeros */
  readonly #zeros = new Set<string>();
  /** streams of `recastSource` that are all zeros and may be: no kernel has lost its result */
  readonly expectedZeros = new Set<string>();

  /**
   * @param expected    streams of `recastSource`
   * @param destination streams of the destination's own run
   * @param widths      elements per row of each stream
   */
  constructor(expected: Streams, destination: Streams, widths: Readonly<Record<string, number>>) {
    this.#expected = expected;
    this.#destination = destination;
    this.#widths = widths;
  }

  get state(): LockstepState["wiring"] {
    return { ...this.measures, expectedZeros: [...this.expectedZeros], bad: [...this.bad] };
  }

  /** Goes on with the state of another comparison; the residual streams have been restored. */
  async restore({ maxRelL2, limit, expectedZeros, bad }: LockstepState["wiring"]): Promise<void> {
    Object.assign(this.measures, { maxRelL2, limit });
    for (const name of expectedZeros) this.expectedZeros.add(name);
    this.bad.push(...bad);
    await this.#noteStream("residual", await this.#expected.view("residual"));
  }

  /** Whether the destination's own run has the bits of `recastSource` in all these streams. */
  areEqual(streams: readonly string[]): boolean {
    return streams.every((name) => this.#equal.has(name));
  }

  /** The caller has made a stream equal in both runs. */
  markEqual(stream: string): void {
    this.#equal.add(stream);
  }

  /**
   * Compares one door.
   *
   * @param actual run of the destination on the inputs of `recastSource`
   * @returns the distance
   */
  async compareDoor(
    stream: string,
    actual: Streams,
    limit: number,
    where: Omit<BadDoor, "door" | "relL2">,
  ): Promise<number> {
    const [expected, found] = [await this.#expected.view(stream), await actual.view(stream)];
    await this.#noteStream(stream, expected);
    return this.judge(relL2(expected, found), limit, { ...where, door: stream });
  }

  /**
   * Compares a stream of experts as one door for each expert: among hundreds of experts, one wrong expert would hardly
   * change the distance of the whole stream.
   *
   * @returns the largest distance
   */
  async compareExpertDoors(
    stream: string,
    actual: Streams,
    limit: number,
    where: DoorLayer,
    experts: readonly ExpertRun[],
    makers: (expert: number) => readonly string[],
  ): Promise<number> {
    const [expected, found] = [await this.#expected.view(stream), await actual.view(stream)];
    await this.#noteStream(stream, expected);
    const width = this.#widths[stream]!;
    const distances = experts.map(({ expert, from, count }) => {
      const [left, right] = [expected, found].map((all) =>
        all.subarray(from * width, (from + count) * width),
      );
      const door = { ...where, door: `${stream}.${expert}`, tensors: makers(expert) };
      return this.judge(relL2(left!, right!), limit, door);
    });
    return Math.max(...distances);
  }

  /** Records the distance of a door. @returns the distance */
  judge(distance: number, limit: number, where: Omit<BadDoor, "relL2">): number {
    this.measures.limit = Math.max(this.measures.limit, limit);
    this.measures.maxRelL2 = Math.max(this.measures.maxRelL2, distance);
    if (!(distance <= limit)) this.bad.push({ ...where, relL2: distance });
    return distance;
  }

  /**
   * Decides whether a compared stream of zeros is expected.
   *
   * @param stage the stage that made the stream; null: the embedding, whose zeros are always expected
   */
  async noteZeros(stream: string, stage: Stage | null): Promise<void> {
    const expected = this.#zeros.has(stream) && (stage === null || (await this.#mayBeZero(stage)));
    if (expected) this.expectedZeros.add(stream);
    else this.expectedZeros.delete(stream);
  }

  /** After residual += out. */
  noteResidualSum(): void {
    for (const streams of [this.#equal, this.expectedZeros]) {
      if (!streams.has("out")) streams.delete("residual");
    }
  }

  /** After residual = out. */
  noteResidualReplaced(): void {
    for (const streams of [this.#equal, this.expectedZeros]) {
      if (streams.has("out")) streams.add("residual");
      else streams.delete("residual");
    }
  }

  async #noteStream(stream: string, expected: Float32Array): Promise<void> {
    if (expected.every((value) => value === 0)) this.#zeros.add(stream);
    else this.#zeros.delete(stream);
    if (sameBits(expected, await this.#destination.view(stream))) this.#equal.add(stream);
    else this.#equal.delete(stream);
  }

  /**
   * A control whose input is all zeros is void, so zeros must not hide a kernel that loses its result. Stages with weights
   * have their own controls, which detect that. For other stages the family declares when zeros are correct.
   */
  async #mayBeZero(stage: Stage): Promise<boolean> {
    const isExpected = (name: string) => this.expectedZeros.has(name);
    switch (stage.op) {
      case "linear":
      case "experts":
        return true;
      case "kernel":
        if (stage.parameters.length > 0) return true;
        return (
          stage.silent?.(await Promise.all(stage.from.map((name) => this.#expected.view(name)))) ?? false
        );
      case "dispatch":
        return isExpected(stage.from);
      case "combine":
        return isExpected(stage.from) || isExpected(stage.weights);
      case "concat":
        return stage.from.every(isExpected);
      default:
        return stage satisfies never;
    }
  }
}
