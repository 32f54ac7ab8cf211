/** The quantization dialects that are written, by name. */
import { IsologitError } from "../core/errors.ts";
import type { PluginOptions } from "../plugins/plugin.ts";
import type { QuantDialect, QuantizationDialect } from "../plugins/quantization-dialect.ts";
import { registryOf } from "../plugins/registry.ts";
import { compressedTensors } from "./compressed-tensors.ts";
import { fp8 } from "./fp8.ts";
import { modelopt } from "./modelopt.ts";

export const quantizationDialects: Readonly<Record<QuantDialect, QuantizationDialect>> = {
  "compressed-tensors": compressedTensors,
  modelopt,
  fp8,
};

/**
 * The dialect of this version or of a plug-in with this id.
 *
 * @throws USAGE: there is none
 */
export function quantizationDialectOf(id: string, options: PluginOptions): QuantizationDialect {
  const known = [...Object.values(quantizationDialects), ...registryOf(options).quantizationDialects];
  const dialect = known.find((one) => one.id === id);
  if (dialect !== undefined) return dialect;
  const ids = known.map((one) => one.id).join(", ");
  throw new IsologitError("USAGE", `\`quantDialect\` is ${JSON.stringify(id)}, expected one of ${ids}`);
}
