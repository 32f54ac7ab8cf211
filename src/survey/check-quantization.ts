/** FP8 weights against what config.json says of them: engines believe the config, and load noise where it is wrong. */
import type { Finding } from "../api/reports.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { isFp8 } from "../core/dtype.ts";
import { isJsonObject } from "../core/json.ts";
import type { Sources } from "../core/read.ts";
import { readScales, type Scales } from "../recast/spelling.ts";
import { finding, findingOf } from "./findings.ts";

/** Real = code * scale: outside of these a weight's largest value is below 1e-8 or above 1e4, which no model has. */
const USUAL_SCALES = { least: 1e-10, most: 100 };

/** Reads the scales themselves: a few bytes a tensor. */
export async function checkScales(
  { tensors }: Checkpoint,
  scales: Scales,
  files: Sources,
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
  for (const { tensor: name } of scales.scaleOf.values()) {
    const tensor = byName.get(name)!;
    const at = { file: tensor.pieces[0]?.file ?? "", tensor: name };
    try {
      const odd = (await readScales(tensor, files)).find(
        (scale) => scale < USUAL_SCALES.least || scale > USUAL_SCALES.most,
      );
      if (odd !== undefined)
        findings.push(finding("scale-range", "warning", at, `a scale of ${odd} is unusual`));
    } catch (error) {
      findings.push({ ...findingOf(error, at.file), rule: "scale-range" });
    }
  }
  return findings;
}

export function checkQuantization({ config, tensors }: Checkpoint, scales: Scales): readonly Finding[] {
  const at = { file: "config.json" };
  const error = (rule: string, message: string, tensor?: string) =>
    finding(rule, "error", { ...at, ...(tensor !== undefined && { tensor }) }, message);
  const said = config.quantization_config;
  const fp8 = tensors.filter(({ dtype, name }) => isFp8(dtype) && !scales.companions.has(name));
  if (said === undefined || said === null) {
    if (fp8.length === 0) return [];
    const message = `${fp8.length} weights are FP8, but there is no quantization_config: engines take codes for weights`;
    return [error("quantization-undeclared", message, fp8[0]!.name)];
  }
  if (!isJsonObject(said)) return [error("quantization-invalid", "quantization_config is no object")];
  if (fp8.length === 0) {
    return [error("quantization-absent", "it declares a quantisation, but no weight is FP8")];
  }
  const ignored = listed(said);
  if (ignored === null)
    return [error("quantization-invalid", "its list of modules left alone is no list of names")];
  const expressions = ignored.filter((pattern) => pattern.startsWith("re:")).length;
  if (expressions > 0) {
    const message = `${expressions} regular expressions say which modules are left alone; they are not tried`;
    return [finding("quantization-unchecked", "note", at, message)];
  }
  const spared = (module: string) => ignored.some((pattern) => matches(pattern, module));
  const findings: Finding[] = [];
  for (const { name } of fp8) {
    if (spared(moduleOf(name))) {
      findings.push(
        error("quantization-contradiction", "it is FP8, but the config lists its module as left alone", name),
      );
    }
  }
  for (const { name, dtype, shape } of tensors) {
    if (isFp8(dtype) || !/_proj\.weight$/.test(name) || shape.length !== 2 || spared(moduleOf(name)))
      continue;
    const message = `it is ${dtype}, but the config does not list its module as left alone: engines expect a scale`;
    findings.push(error("quantization-contradiction", message, name));
  }
  return findings;
}

const LISTS = ["ignore", "ignored_layers", "exclude_modules", "modules_to_not_convert"] as const;

/** Names of the modules that the config says are not quantised; null where it is no list of names. */
function listed(said: Readonly<Record<string, unknown>>): readonly string[] | null {
  const lists = LISTS.map((key) => said[key]).filter((list) => list !== undefined && list !== null);
  if (!lists.every((list) => Array.isArray(list) && list.every((name) => typeof name === "string")))
    return null;
  return lists.flat() as string[]; // just checked
}

/** `*` is any run of characters, a name stands for all below it; engines map backbone to model. */
function matches(pattern: string, module: string): boolean {
  const names = [module, module.replace(/^backbone\./, "model.")];
  if (!pattern.includes("*")) return names.some((name) => name === pattern || name.startsWith(`${pattern}.`));
  return names.some((name) => inOrder(pattern.split("*"), name));
}

/** Written out, since a config's own pattern may be one that takes a regular expression forever. */
function inOrder(parts: readonly string[], name: string): boolean {
  const [first = "", ...rest] = parts;
  if (!name.startsWith(first)) return false;
  const last = rest.pop() ?? "";
  let at = first.length;
  for (const part of rest) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return name.length - last.length >= at && name.endsWith(last);
}

function moduleOf(name: string): string {
  return name.slice(0, name.lastIndexOf("."));
}
