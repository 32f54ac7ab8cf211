/**
 * Compares quantised weights with their declarations in config.json and in ModelOpt's file. Engines trust these, and load
 * noise if they are wrong. `check` and `verify` use the same rules. No weight is read.
 */
import {
  type DeclarationFile,
  type DeclaredQuantization,
  MODELOPT_CONFIG,
} from "../../checkpoint/declared-quantization.ts";
import type { ScaleTable } from "../../checkpoint/scales/pair.ts";
import type { Checkpoint } from "../../core/checkpoint.ts";
import { isFnuz } from "../../core/dtype.ts";
import { isJsonObject } from "../../core/json.ts";
import type { Engine, EngineId, EngineLimit } from "../engines/engine.ts";
import { createFolder, isQuantised, type QuantizedFolder } from "../engines/folder.ts";
import { ENGINES } from "../engines/index.ts";
import { quantisedModules } from "../engines/limits.ts";
import { type Scheme, schemeOf } from "../scheme.ts";
import { cacheFaults } from "./cache.ts";
import { fault, judgeFaults, type QuantizationFault, type UnjudgedFault } from "./fault.ts";
import { listFaults } from "./lists.ts";
import { fieldFaults, methodFaults } from "./method.ts";
import { idsOf, readersOf } from "./readers.ts";
import { weightFaults } from "./weights.ts";

type Tensors = Pick<Checkpoint, "config" | "tensors">;

/**
 * @param declared every declaration of the folder, the one that most engines read first
 * @param asked    the engines that the user names; undefined: all
 */
export function quantizationFaults(
  checkpoint: Tensors,
  scales: ScaleTable,
  declared: readonly DeclaredQuantization[],
  asked?: readonly EngineId[],
): readonly QuantizationFault[] {
  const faults = [...fnuzFaults(checkpoint, scales), ...unjudgedFaults(checkpoint, scales, declared)];
  return judgeFaults(faults, asked);
}

/** Engines convert FP8 to FNUZ types when they load it on hardware that has only those. */
function fnuzFaults({ tensors }: Tensors, { scaleOf }: ScaleTable): readonly UnjudgedFault[] {
  const weights = tensors.filter(({ name, dtype }) => isFnuz(dtype) && scaleOf.has(name));
  const [first] = weights;
  if (first === undefined) return [];
  const message = `${weights.length} weights are ${first.dtype}, the FP8 of AMD's MI300, and engines expect the OCP type in files: the same bits mean half of their value there; convert with \`fnuz\` relabel`;
  const engines = ENGINES.map(({ id }) => id);
  return [fault("quantization-fnuz", "warning", message, { tensor: first.name, engines })];
}

function unjudgedFaults(
  checkpoint: Tensors,
  scales: ScaleTable,
  declared: readonly DeclaredQuantization[],
): readonly UnjudgedFault[] {
  const quantised = checkpoint.tensors.filter((tensor) => isQuantised(tensor, scales));
  const [first, second] = declared;
  if (first === undefined) {
    if (quantised.length === 0) return [];
    const message = `${quantised.length} weights are FP8, but neither quantization_config nor ${MODELOPT_CONFIG} declares it: engines take codes for weights`;
    return [fault("quantization-undeclared", "error", message, { tensor: quantised[0]!.name })];
  }
  const { file } = first;
  const fails = (rule: string, message: string) => [fault(rule, "error", message, { file })];
  if (!isJsonObject(first.value))
    return fails("quantization-invalid", "quantization_config is not an object");
  if (quantised.length === 0)
    return fails("quantization-absent", "it declares a quantisation, but no weight is FP8");
  const scheme = schemeOf(first.value);
  if (scheme === null) {
    const message = "its list of ignored modules, or the list of a group, is not a list of names";
    return fails("quantization-invalid", message);
  }
  const files = declared.map((declaration) => declaration.file);
  const beside = second === undefined ? null : schemeBeside(second);
  const isCached = scheme.cache || beside?.scheme.cache === true;
  const folder = createFolder(checkpoint, scales, first.value, scheme);
  const faults = declarationFaults(folder, file, files, isCached);
  if (beside === null) return faults;
  const other = createFolder(checkpoint, scales, beside.record, beside.scheme);
  return [
    ...joinFaults(faults, declarationFaults(other, MODELOPT_CONFIG, files, isCached)),
    ...differenceFaults(scheme, beside.scheme),
  ];
}

function schemeBeside({ value }: DeclaredQuantization) {
  const record = isJsonObject(value) ? value : {};
  const scheme = schemeOf(record);
  return scheme === null ? null : { record, scheme };
}

/** Faults of one declaration. @param files all files that declare */
function declarationFaults(
  folder: QuantizedFolder,
  file: DeclarationFile,
  files: readonly DeclarationFile[],
  isCached: boolean,
): readonly UnjudgedFault[] {
  const engines = ENGINES.filter((engine) => engine.files.find((name) => files.includes(name)) === file);
  const readers = readersOf(folder, file, engines);
  const ids = idsOf(readers);
  const ofMethod = methodFaults(folder);
  const faults = [
    ...ofMethod,
    ...fieldFaults(folder),
    // under a wrong method every weight would be a fault
    ...(ofMethod.length > 0
      ? []
      : quantisedModules(folder).flatMap((module) => weightFaults(module, folder, ids))),
    ...listFaults(folder, readers),
    ...cacheFaults(folder, isCached, ids),
    ...(ids.length > 0 ? engines.flatMap((engine) => engineFaults(folder, engine)) : []),
    ...ENGINES.filter((engine) => !engine.files.some((name) => files.includes(name))).map(({ id }) =>
      engineFault(id, { rule: "engine-declaration", severity: "note", message: BLIND, tensor: null }),
    ),
  ];
  return uncheckedFaults(folder, faults).map((found) => ({ ...found, file }));
}

const BLIND = `does not read ${MODELOPT_CONFIG}, the only file that declares the quantisation: it takes codes for weights`;

/** The modules of an expression that could not be tried are unknown, so contradictions cannot be judged. */
function uncheckedFaults(
  { expressions: { untried } }: QuantizedFolder,
  faults: readonly UnjudgedFault[],
): readonly UnjudgedFault[] {
  if (untried.size === 0) return faults;
  const message = `${untried.size} regular expressions could not be tried: ${[...untried].map((source) => `re:${source}`).join(" ")}`;
  return [
    ...faults.filter(
      ({ rule }) => !/^(quantization-(contradiction|entry-unmatched)|engine-list)$/.test(rule),
    ),
    fault("quantization-unchecked", "note", message),
  ];
}

/** What one engine does not read. */
function engineFaults(
  folder: QuantizedFolder,
  { id, methods, refuses, limits }: Engine,
): readonly UnjudgedFault[] {
  const method = folder.scheme.method ?? "";
  const refusal = refuses?.[method];
  if (refusal !== undefined)
    return [engineFault(id, { rule: "engine-method", severity: "note", message: refusal, tensor: null })];
  return methods[method] === undefined ? [] : limits(folder).map((limit) => engineFault(id, limit));
}

function engineFault(
  id: EngineId,
  { rule, severity, loads = false, message, tensor }: EngineLimit,
): UnjudgedFault {
  return fault(rule, severity, "", { tensor, loads, engines: [id], reasons: { [id]: message } });
}

/**
 * The faults of config.json, with those of ModelOpt's own file beside it: TensorRT-LLM reads that file, other engines
 * config.json. A fault of both is one fault for more engines.
 */
function joinFaults(
  faults: readonly UnjudgedFault[],
  ofFile: readonly UnjudgedFault[],
): readonly UnjudgedFault[] {
  const readersOfFile = ENGINES.filter(({ files }) => files[0] === MODELOPT_CONFIG).map(({ id }) => id);
  const isSame = (a: UnjudgedFault, b: UnjudgedFault) =>
    a.rule === b.rule && a.tensor === b.tensor && a.message === b.message && a.message !== "";
  const joined = faults.map((found) => {
    const other = ofFile.find((candidate) => isSame(found, candidate));
    if (other === undefined || found.engines.length === 0) return found;
    return {
      ...found,
      engines: [...found.engines, ...other.engines],
      reasons: { ...found.reasons, ...other.reasons },
    };
  });
  const added = ofFile.filter((found) => !faults.some((known) => isSame(found, known)));
  return [
    ...joined,
    ...added.map((found) => {
      if (found.severity !== "error") return found;
      const message = `by ${MODELOPT_CONFIG}, ${found.message}`;
      const engines = found.engines.length === 0 ? readersOfFile : found.engines;
      return { ...found, rule: "quantization-beside", severity: "warning" as const, message, engines };
    }),
  ];
}

/** ModelOpt writes both files from the same values. */
function differenceFaults(scheme: Scheme, beside: Scheme): readonly UnjudgedFault[] {
  if (scheme.method !== "modelopt") return [];
  const [here, there] = [entriesOf(scheme), entriesOf(beside)];
  const [algorithm, other] = [scheme.algorithm ?? "none", beside.algorithm ?? "none"];
  const differences = [
    ...(algorithm.toLowerCase() === other.toLowerCase()
      ? []
      : [`the algorithm is ${other}, and ${algorithm} there`]),
    ...(scheme.cache === beside.cache
      ? []
      : [`an FP8 KV cache is declared ${beside.cache ? "here" : "there"} alone`]),
    ...(here.join("\n") === there.join("\n")
      ? []
      : [`the list of modules left alone has ${textOfList(there)}, and ${textOfList(here)} there`]),
  ];
  return differences.map((difference) => {
    const message = `it disagrees with config.json: ${difference}; TensorRT-LLM reads this file, vLLM and SGLang read config.json`;
    return fault("quantization-files", "warning", message, { file: MODELOPT_CONFIG });
  });
}

const entriesOf = ({ lists }: Scheme): readonly string[] => [...new Set([...lists.values()].flat())].sort();

function textOfList(entries: readonly string[]): string {
  const shown = entries.slice(0, 3).map((entry) => JSON.stringify(entry));
  return `${entries.length} entries${shown.length === 0 ? "" : `: ${shown.join(", ")}`}${entries.length > 3 ? " …" : ""}`;
}
