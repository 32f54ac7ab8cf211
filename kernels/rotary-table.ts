/**
 * The angles of rotary positions (RoPE; Su et al., arXiv 2104.09864), as a table of cosines and sines for `rope`. They
 * are computed in float64: the angle of position 131072 has an error of 0.008 in F32.
 */

export interface RotarySpec {
  /** how many elements of a head are turned, an even number */
  readonly rotary: number;
  /** base of the frequencies: pair i turns by theta^(-2 i / rotary) at each position, before scaling */
  readonly theta: number;
  readonly scaling: RotaryScaling;
}

/** How a model changes the frequencies to read longer texts than its pre-training had. */
export type RotaryScaling =
  | { readonly kind: "none" }
  /** all frequencies divided by `factor` (Chen et al., arXiv 2306.15595) */
  | { readonly kind: "linear"; readonly factor: number }
  /** Llama 3.1: pairs with few turns within the `originalPositions` are slowed down, pairs with many are not */
  | {
      readonly kind: "llama3";
      readonly factor: number;
      /** pairs with fewer turns are divided by `factor` */
      readonly lowFactor: number;
      /** pairs with more turns stay as they are */
      readonly highFactor: number;
      readonly originalPositions: number;
    }
  /** YaRN (Peng et al., arXiv 2309.00071) */
  | {
      readonly kind: "yarn";
      readonly factor: number;
      readonly originalPositions: number;
      /** pairs with more turns within the `originalPositions` stay as they are */
      readonly betaFast: number;
      /** pairs with fewer turns are divided by `factor` */
      readonly betaSlow: number;
      /** whether the ends of the ramp between both are whole numbers of pairs */
      readonly truncate: boolean;
      /** factor of each cosine and sine */
      readonly magnitude: number;
    };

/**
 * The rotary / 2 cosines of each token, then its rotary / 2 sines, rounded to F32: [tokens, rotary].
 *
 * @param first  position of the first token; positions begin with 0
 */
export function rotaryTable(spec: RotarySpec, first: number, tokens: number): Float32Array {
  const { rotary, scaling } = spec;
  const pairs = rotary / 2;
  const magnitude = scaling.kind === "yarn" ? scaling.magnitude : 1;
  const frequencies = frequenciesOf(spec); // [pairs], radians for each position
  const table = new Float32Array(tokens * rotary);
  for (let t = 0; t < tokens; t++) {
    for (let i = 0; i < pairs; i++) {
      const angle = (first + t) * frequencies[i]!;
      table[t * rotary + i] = magnitude * Math.cos(angle);
      table[t * rotary + pairs + i] = magnitude * Math.sin(angle);
    }
  }
  return table;
}

/** For each pair, the number by which the scaling divides its frequency: [rotary / 2], F32. */
export function frequencyFactors(spec: RotarySpec): Float32Array {
  const scaled = frequenciesOf(spec);
  const plain = frequenciesOf({ ...spec, scaling: { kind: "none" } });
  return Float32Array.from(plain, (frequency, i) => frequency / scaled[i]!);
}

function frequenciesOf({ rotary, theta, scaling }: RotarySpec): readonly number[] {
  const plain = Array.from({ length: rotary / 2 }, (_, i) => theta ** ((-2 * i) / rotary));
  switch (scaling.kind) {
    case "none":
      return plain;
    case "linear":
      return plain.map((f) => f / scaling.factor);
    case "llama3": {
      const { factor, lowFactor, highFactor, originalPositions } = scaling;
      return plain.map((f) => {
        const turns = (originalPositions * f) / (2 * Math.PI);
        const kept = clampToUnit((turns - lowFactor) / (highFactor - lowFactor));
        return f * ((1 - kept) / factor + kept);
      });
    }
    case "yarn": {
      const { factor, originalPositions, betaFast, betaSlow, truncate } = scaling;
      /** The pair, not a whole number, that makes this many turns within the original positions. */
      const pairOf = (turns: number) =>
        (rotary * Math.log(originalPositions / (2 * Math.PI * turns))) / (2 * Math.log(theta));
      const [fast, slow] = [pairOf(betaFast), pairOf(betaSlow)];
      const from = Math.max(truncate ? Math.floor(fast) : fast, 0);
      const to = Math.min(truncate ? Math.ceil(slow) : slow, rotary - 1);
      const width = to === from ? 0.001 : to - from; // as in the published code
      return plain.map((f, i) => {
        const slowed = clampToUnit((i - from) / width);
        return (f / factor) * slowed + f * (1 - slowed);
      });
    }
    default:
      return scaling satisfies never;
  }
}

const clampToUnit = (x: number): number => Math.min(Math.max(x, 0), 1);
