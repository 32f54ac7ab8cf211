/** Sizes that the tensors of a Megatron checkpoint show, for keys that its config does not have. */
import type { Shape } from "../../../core/dtype.ts";
import type { ObservedFacts } from "../../dialect.ts";
import { partsOf } from "../../parts/megatron/parallelism.ts";

/** A size, and the tensor that shows it. */
export interface Size {
  readonly value: number | string;
  readonly from: string;
}

const LAYER = /^decoder\.layers\.(\d+)\.(.+)$/;

/** Sizes by the names of settings. Shapes do not show the number of groups, nor the width of a head without `heads`. */
export function readSizes(
  facts: ObservedFacts,
  known: Readonly<Record<string, unknown>>,
): Readonly<Record<string, Size>> {
  const parts = partsOf(facts);
  const sizes: Record<string, Size> = {};
  const found = (setting: string, suffixes: readonly string[], size: (shape: Shape) => number) => {
    for (const suffix of suffixes) {
      const tensor = facts.tensors.find(
        ({ name }) => name === suffix || (LAYER.test(name) && name.endsWith(`.${suffix}`)),
      );
      const value = tensor === undefined ? 0 : size(tensor.shape);
      if (tensor === undefined || !(Number.isSafeInteger(value) && value > 0)) continue;
      sizes[setting] = { value, from: `the shape of ${tensor.name}` };
      return;
    }
  };
  const of = (setting: string) => Number(known[setting] ?? sizes[setting]?.value ?? 0);
  const cut = (axis: number) => (shape: Shape) => shape[axis]! * parts;

  found("rows", ["embedding.word_embeddings.weight"], cut(0));
  found("hidden", ["embedding.word_embeddings.weight"], (shape) => shape[1]!);
  found("mambaHeads", ["mixer.A_log"], cut(0));
  found("mambaHeadDim", ["mixer.norm.weight"], (shape) => cut(0)(shape) / of("mambaHeads"));
  found("state", ["mixer.in_proj.weight.B"], (shape) => cut(0)(shape) / of("groups"));
  if (sizes.state === undefined) {
    const rest = of("mambaHeads") * (2 * of("mambaHeadDim") + 1);
    found("state", ["mixer.in_proj.weight"], (shape) => (cut(0)(shape) - rest) / 2 / of("groups"));
  }
  found("convKernel", ["mixer.conv1d.weight.x", "mixer.conv1d.weight", "mixer.conv1d_weight"], (s) => s[2]!);
  found("headDim", ["self_attention.linear_proj.weight"], (shape) => cut(1)(shape) / of("heads"));
  found("kvHeads", ["self_attention.linear_qkv.weight"], (shape) => {
    return (cut(0)(shape) / of("headDim") - of("heads")) / 2;
  });
  found("experts", ["mlp.router.weight"], (shape) => shape[0]!);
  found("latent", ["mlp.fc1_latent_proj.weight"], (shape) => shape[0]!);
  found("moeFfn", ["mlp.experts.experts.linear_fc1.weight"], (shape) => shape[1]!);
  found("moeShared", ["mlp.shared_experts.linear_fc1.weight"], cut(0));
  found("ffn", ["mlp.linear_fc1.weight"], cut(0));
  const pattern = patternOf(facts);
  return pattern === ""
    ? sizes
    : { ...sizes, pattern: { value: pattern, from: "the modules of each layer" } };
}

/** The layer pattern, derived from the modules of each layer. The layers of pipeline stages follow one another. */
function patternOf({ tensors }: ObservedFacts): string {
  const letters = new Map<number, string>();
  for (const { name, rank } of tensors) {
    const [, index, rest] = LAYER.exec(name) ?? [];
    if (rest === undefined) continue;
    const place = (rank?.pp ?? 0) * STAGE + Number(index);
    if (rest.startsWith("mlp.router.")) letters.set(place, "E");
    else if (rest.startsWith("mlp.") && !letters.has(place)) letters.set(place, "-");
    else if (rest.startsWith("self_attention.")) letters.set(place, "*");
    else if (rest.startsWith("mixer.") && rest !== "mixer.in_proj.layer_norm_weight") letters.set(place, "M");
  }
  return [...letters]
    .sort(([a], [b]) => a - b)
    .map(([, letter]) => letter)
    .join("");
}

/** More than the number of layers of any stage. */
const STAGE = 2 ** 20;
