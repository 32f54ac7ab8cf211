/** Faults of a `quantization_config` as a whole: its method, its algorithm, and fields for all modules. */
import type { QuantizedFolder } from "../engines/folder.ts";
import { oddHead } from "../fields.ts";
import { isKnownAlgorithm } from "../groups.ts";
import { OWN_E5M2 } from "../scheme.ts";
import { fault, type UnjudgedFault } from "./fault.ts";

/** Methods whose engines read FP8 weights with their scales. */
const METHODS = ["compressed-tensors", "modelopt", "fp8", "mxfp8", "fbgemm_fp8", "quark"];

export function methodFaults({ scheme, record, modules }: QuantizedFolder): readonly UnjudgedFault[] {
  const { method, algorithm, groups } = scheme;
  const error = (message: string) => [fault("quantization-method", "error", message)];
  if (record.format === OWN_E5M2 && method === null) return [];
  if (method === null) return error("it names no quant_method: engines refuse it");
  if (!METHODS.includes(method)) {
    return error(
      `its quant_method is ${JSON.stringify(method)}, and the weights are FP8 as ${METHODS.join(", ")} store it`,
    );
  }
  if (method === "modelopt") {
    const stored = new Set(modules.flatMap(({ encoding }) => encoding ?? []));
    const named =
      algorithm === null ? "it names no quant_algo" : `its quant_algo is ${JSON.stringify(algorithm)}`;
    const isRight =
      algorithm !== null &&
      isKnownAlgorithm(algorithm) &&
      groups.some(({ encoding }) => encoding === null || stored.has(encoding));
    if (!isRight)
      return error(
        `${named}: engines use it to choose how to read weights, and these are ${[...stored].join(" and ")}`,
      );
  }
  return groups.length > 0 ? [] : error("it names no group of modules: engines take codes for weights");
}

/** Faults in the fields of compressed-tensors for all modules. */
export function fieldFaults({ scheme, record }: QuantizedFolder): readonly UnjudgedFault[] {
  if (scheme.method !== "compressed-tensors") return [];
  const faults = oddHead(record).map((field) =>
    fault(
      "quantization-field",
      "error",
      `its ${field}: with this, engines do not read plain codes and scales`,
    ),
  );
  if (scheme.unknown.length === 0) return faults;
  const message = `it has unknown keys: ${scheme.unknown.join(", ")}`;
  return [...faults, fault("quantization-key-unknown", "warning", message)];
}
