/** The tensors that hold calibrated scales, beside the weights of a destination. Their bytes are known before the run. */
import type { WantedTensor } from "../../formats/format.ts";
import { moduleOf } from "../checkpoint/scales/names.ts";
import { isFp8 } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { shapeOf } from "../core/mapping/layout.ts";
import { leafRoles } from "../families/expand.ts";
import { INPUT_SCALE } from "../plugins/quantization-dialect.ts";
import type { PlannedWeight } from "./planned-weights.ts";
import type { DescribedOutput } from "./quantized-output.ts";

interface KnownTensor {
  readonly tensor: WantedTensor;
  readonly bytes: Uint8Array;
}

/**
 * The scale of a weight's activations, if the weight is FP8, and the scale of the cache that keeps its product.
 *
 * @throws PLAN_IMPOSSIBLE if the weight is FP8 and no forward pass reads it
 */
export function calibratedScales(
  weight: PlannedWeight,
  { dialect, calibrated }: DescribedOutput,
): readonly KnownTensor[] {
  if (calibrated === null) return [];
  const { name, layout, dtype, role } = weight;
  const known: KnownTensor[] = [];
  const add = (name: string, scale: number) => {
    const { shape } = dialect.scaleTensor(weight.name, shapeOf(layout), "tensor");
    known.push({
      tensor: { name, dtype: "F32", shape },
      bytes: new Uint8Array(Float32Array.of(scale).buffer),
    });
  };
  const largest = (scales: ReadonlyMap<string, number>) =>
    Math.max(...leafRoles(layout).map((key) => scales.get(key) ?? Number.NEGATIVE_INFINITY));
  if (isFp8(dtype)) {
    const scale = largest(calibrated.inputs);
    if (scale < 0) {
      const message = "it is FP8, and the forward pass of `calibrate` does not read it";
      const next = "keep it in its dtype by a recipe, or leave `calibrate` out";
      throw new IsologitError("PLAN_IMPOSSIBLE", message, { tensor: name }, { next });
    }
    add(moduleOf(name) + INPUT_SCALE, scale);
  }
  const cached = largest(calibrated.cached);
  if (role.spec.cached !== undefined && cached > 0)
    add(dialect.cacheScale(name, role.spec.cached.as), cached);
  return known;
}
