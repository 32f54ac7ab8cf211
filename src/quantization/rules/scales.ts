/** Faults in the values of scales. */
import type { ScaleTable } from "../../checkpoint/scales/pair.ts";
import { areExponents, type RangeReader, readScales } from "../../checkpoint/scales/values.ts";
import type { Checkpoint, Tensor } from "../../core/checkpoint.ts";
import { IsologitError } from "../../core/errors.ts";
import type { Severity } from "../../core/finding.ts";
import { generalFault, type QuantizationFault } from "./fault.ts";

interface Usual {
  readonly least: number;
  readonly most: number;
  readonly severity: Severity;
}

/**
 * Usual scales. Real value = code * scale, and the largest code of E4M3 is 448, with the block scales of NVFP4 2688. In any
 * model, the largest value of a weight is between 1e-8 and 1e4; that of activations, after a norm, a gate or a square, is
 * between 1e-5 and 1e7. The global scales of compressed-tensors are 2688 / that value.
 */
const USUAL = {
  weight: { least: 1e-10, most: 100, severity: "warning" },
  secondFactor: { least: 1e-12, most: 100, severity: "warning" },
  secondDivisor: { least: 1e-2, most: 1e12, severity: "warning" },
  activation: { least: 1e-9, most: 1e5, severity: "error" },
  activationDivisor: { least: 1e-5, most: 1e9, severity: "error" },
  /** exponents and block scales below another scale: each value may occur */
  any: { least: 0, most: Number.POSITIVE_INFINITY, severity: "error" },
} as const satisfies Record<string, Usual>;

/**
 * Reads the scales, a few bytes for each tensor. An unusual scale of a weight is a warning, because `verify` compares it
 * with the weight. An unusual scale of activations is an error: nothing else checks it, and all activations would become 0
 * or the largest code.
 */
export async function scaleFaults(
  { tensors }: Pick<Checkpoint, "tensors">,
  { scaleOf, unusedScales }: Pick<ScaleTable, "scaleOf" | "unusedScales">,
  files: RangeReader,
): Promise<readonly QuantizationFault[]> {
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  const ofWeights = [...scaleOf.values()].flatMap(({ tensor, second }): [string, Usual][] => {
    if (second === undefined) return [[tensor, areExponents(byName.get(tensor)!) ? USUAL.any : USUAL.weight]];
    const usual = second.op === "divide" ? USUAL.secondDivisor : USUAL.secondFactor;
    return [
      [tensor, USUAL.any],
      [second.tensor, usual],
    ];
  });
  const ofActivations = unusedScales.map((name): [string, Usual] => [
    name,
    name.endsWith("_global_scale") ? USUAL.activationDivisor : USUAL.activation,
  ]);
  const faults: QuantizationFault[] = [];
  for (const [name, usual] of [...ofWeights, ...ofActivations]) {
    const found = await scaleFault(byName.get(name)!, usual, files);
    if (found !== null) faults.push(found);
  }
  return faults;
}

async function scaleFault(
  tensor: Tensor,
  { least, most, severity }: Usual,
  files: RangeReader,
): Promise<QuantizationFault | null> {
  const { name } = tensor;
  try {
    const odd = (await readScales(tensor, files)).find((scale) => scale < least || scale > most);
    return odd === undefined
      ? null
      : generalFault("scale-range", severity, `a scale of ${odd} is unusual`, name);
  } catch (error) {
    if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
    return generalFault("scale-range", "error", error.message, name);
  }
}
