/** The golden of pruning: a small trained model, its scores by an independent program in float64, and prompts. */
import { readFileSync } from "node:fs";
import { expect } from "vitest";
import { arraysOf, type StoredArray } from "./goldens.ts";
import { copyOf, Editor, written } from "./verify/planted.ts";

export const minipuzzle = (name: string): string =>
  new URL(`../../fixtures/minipuzzle/${name}`, import.meta.url).pathname;

export const parent = minipuzzle("parent");

/** Prompts of 9, 17, 40 and 70 tokens. */
export const calibrationPrompts: readonly (readonly number[])[] = JSON.parse(
  readFileSync(minipuzzle("parent.calibration.json"), "utf8"),
);

export function doublesOf({ dtype, bytes }: StoredArray): Float64Array {
  const { buffer } = bytes.slice();
  return dtype === "F64" ? new Float64Array(buffer) : Float64Array.from(new Float32Array(buffer));
}

/** The scores of the golden by tensor name. */
export async function goldenScores(): Promise<ReadonlyMap<string, Float64Array>> {
  const arrays = await arraysOf(minipuzzle("parent.importance.safetensors"));
  return new Map([...arrays].map(([name, array]) => [name, doublesOf(array)]));
}

/** The scores in a file by tensor name. */
export async function scoresIn(path: string): Promise<ReadonlyMap<string, Float64Array>> {
  return new Map([...(await arraysOf(path))].map(([name, array]) => [name, doublesOf(array)]));
}

/** Limits of an F32 run, relative to each value; scores of units are compared relative to the largest of their tensor. */
const LAYER_LIMITS: Readonly<Record<string, number>> = {
  ...{
    "layer.mse": 2e-4,
    "layer.kl": 2e-4,
    "layer.logits_nmse": 2e-4,
    "layer.cosine": 2e-3,
    "layer.rank": 0,
  },
};
const UNIT_LIMIT = 2e-5;

/** @throws if a score is missing, is one too many, or differs by more than an F32 run may */
export function refuseScoresBeyond(
  scores: ReadonlyMap<string, Float64Array>,
  expected: ReadonlyMap<string, Float64Array>,
): void {
  const wanted = [...expected.keys()].filter((name) => name !== "layer.mse_by_prompt");
  expect([...scores.keys()].sort()).toEqual(wanted.sort());
  for (const name of wanted) {
    const [own, theirs] = [scores.get(name)!, expected.get(name)!];
    expect(own.length, name).toBe(theirs.length);
    const limit = LAYER_LIMITS[name] ?? UNIT_LIMIT;
    const largest = Math.max(...theirs);
    for (const [i, value] of theirs.entries()) {
      const scale = name in LAYER_LIMITS ? value : largest;
      expect(Math.abs(own[i]! - value), `${name}[${i}]`).toBeLessThanOrEqual(limit * scale);
    }
  }
}

interface Planted {
  readonly layers: readonly number[];
  /** by layer: channels whose row of `up_proj` is zero */
  readonly silent: Readonly<Record<string, readonly number[]>>;
  /** by layer: channels whose column of `down_proj` is zero */
  readonly unheard: Readonly<Record<string, readonly number[]>>;
}

/** Writes the golden with its planted dead parts: layers whose output matrix is zero, and channels of MLPs. */
export async function planted(folder: string): Promise<Planted & { readonly folder: string }> {
  const measured = JSON.parse(readFileSync(minipuzzle("parent.measured.json"), "utf8"));
  const { layers, silent, unheard } = measured.planted as Planted;
  const editor = new Editor(await copyOf(parent));
  const nameOf = (layer: number | string, matrix: string) =>
    `backbone.layers.${layer}.mixer.${matrix}.weight`;
  const output = { mamba: "out_proj", attention: "o_proj", mlp: "down_proj" };
  for (const layer of layers) {
    const { kind } = measured.layers[layer] as { kind: keyof typeof output };
    editor.bytes(nameOf(layer, output[kind]), (bytes) => bytes.fill(0));
  }
  const [hidden, ffn] = [64, 128];
  for (const [layer, channels] of Object.entries(silent))
    editor.bytes(nameOf(layer, "up_proj"), (bytes) => {
      for (const channel of channels) bytes.fill(0, 2 * channel * hidden, 2 * (channel + 1) * hidden);
    });
  for (const [layer, channels] of Object.entries(unheard))
    editor.bytes(nameOf(layer, "down_proj"), (bytes) => {
      for (let row = 0; row < hidden; row++)
        for (const channel of channels)
          bytes.fill(0, 2 * (row * ffn + channel), 2 * (row * ffn + channel + 1));
    });
  return { folder: written(editor.copy, folder), layers, silent, unheard };
}
