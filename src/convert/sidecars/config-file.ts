/** The text of a destination's config.json, where it differs from the source's: after a recast, or with an untied head. */
import type { WantedSidecar, Writer } from "../../../formats/format.ts";
import { MODELOPT_CONFIG } from "../../checkpoint/declared-quantization.ts";
import type { LoadedModel } from "../../checkpoint/load.ts";
import { moduleOf } from "../../checkpoint/scales/names.ts";
import type { Checkpoint, Sidecar } from "../../core/checkpoint.ts";
import { isFp8 } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import { readRange } from "../../core/io.ts";
import { parseJsonObject } from "../../core/json.ts";
import type { Dialect } from "../../families/dialect.ts";
import { tensorsRead } from "../../families/expand.ts";
import type { Quantization } from "../../plugins/quantization-dialect.ts";
import { withDtype, withoutQuantization, withQuantization } from "../../quantization/config-text.ts";
import { withMember } from "../../quantization/json-edit.ts";
import { refuseWrongHits } from "../../quantization/list-check.ts";
import type { Policy } from "../../quantization/policy.ts";
import type { DescribedOutput, QuantizedOutput } from "../quantized-output.ts";
import type { Job } from "../types.ts";

export const CONFIG = "config.json";
/** The dialect whose config record is that file. */
export const CONFIG_DIALECT = "hf";

/** Side files of a destination by path. */
export type SideFileMap = Map<string, Sidecar | WantedSidecar>;

export interface ConfigRequest {
  readonly source: LoadedModel;
  readonly writer: Writer;
  readonly dialect: Dialect;
  readonly jobs: readonly Job[];
  readonly policy: Policy;
  readonly quantized: QuantizedOutput;
}

/** Replaces config.json in `files` where its text must change, and the JSON files that describe FP8 weights. @returns warnings */
export async function rewriteConfig(files: SideFileMap, request: ConfigRequest): Promise<readonly string[]> {
  const { source, writer, jobs, quantized, policy } = request;
  const untied = await untieHead(files, source, writer);
  const config = files.get(CONFIG);
  if (config === undefined || quantized.kind === "copied") return untied;
  files.delete(MODELOPT_CONFIG); // it describes the weights of the source
  const bytes = await readSideFile(source.checkpoint, config);
  const before = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  if (quantized.kind === "described") {
    const { config: value, files: beside, warnings } = describeWeights(request, quantized);
    files.set(CONFIG, textFile(CONFIG, withQuantization(before, value)));
    for (const { path, value: json } of beside)
      files.set(path, textFile(path, `${JSON.stringify(json, null, 4)}\n`));
    return [...untied, ...warnings];
  }
  const plain = withoutQuantization(before);
  const isCast = jobs.some(({ cast }) => cast !== undefined);
  const text = policy.torchDtype === null || !isCast ? plain : withDtype(plain, policy.torchDtype);
  if (text !== before) files.set(CONFIG, textFile(CONFIG, text));
  return untied;
}

/** A family may tie by config a head that other software stores apart from the token table, and may have trained apart. */
async function untieHead(
  files: SideFileMap,
  { dialect, checkpoint, roles }: LoadedModel,
  writer: Writer,
): Promise<readonly string[]> {
  const config = files.get(CONFIG);
  if (config === undefined || dialect.id === CONFIG_DIALECT || writer.config !== "file") return [];
  if (![...roles.values()].some(({ spec }) => spec.tiedTo !== undefined)) return [];
  const bytes = await readSideFile(checkpoint, config);
  const key = "tie_word_embeddings";
  if (parseJsonObject(bytes, { file: CONFIG, nonFinite: true })[key] !== true) return [];
  const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  files.set(CONFIG, textFile(CONFIG, withMember(text, key, false)));
  return [`${key} is written as false in ${CONFIG}: the head is stored, and may have been trained apart`];
}

/** @throws PLAN_IMPOSSIBLE if the dialect cannot describe the weights so that every engine understands its list */
function describeWeights({ source, jobs, dialect }: ConfigRequest, quantized: DescribedOutput): Quantization {
  const weights = jobs.filter(({ role, tensor }) => role !== null && tensor.name.endsWith(".weight"));
  const fp8 = weights.filter(({ tensor }) => isFp8(tensor.dtype));
  const plain = weights.filter(({ tensor }) => !isFp8(tensor.dtype) && tensor.shape.length >= 2);
  const isLinear = ({ role }: Job) => role!.spec.kind === "matrix" || role!.spec.kind === "router";
  const namesOf = (of: readonly Job[]) => of.flatMap(({ tensor }) => namesIn(tensor.name, dialect));
  const { dtype } = fp8[0]!.tensor;
  const other = fp8.find(({ tensor }) => tensor.dtype !== dtype)?.tensor;
  if (other !== undefined) {
    const message = `it would be ${other.dtype}, and other weights ${dtype}: no description holds for both`;
    throw new IsologitError("PLAN_IMPOSSIBLE", message, { tensor: other.name });
  }
  const quantization = quantized.dialect.describe({
    ...quantized,
    cast: fp8.map(({ tensor }) => tensor.name),
    kept: [...namesOf(plain.filter(isLinear)), ...tiedHeads(source, dialect)],
    others: namesOf(plain.filter((job) => !isLinear(job))),
    ragged: fp8
      .filter(({ tensor }) => tensor.shape.some((n) => n % 128 !== 0))
      .map(({ tensor }) => tensor.name),
    heads: fp8.filter(({ role }) => role!.layer === null).map(({ tensor }) => tensor.name),
    dtype,
  });
  refuseWrongHits(quantized.dialect.id, quantization.list, namesOf(fp8).map(moduleOf));
  return quantization;
}

/**
 * Weights of heads that are the token table and not stored. Engines have a linear module for such a head, and would expect a
 * scale of it.
 */
const tiedHeads = (source: LoadedModel, dialect: Dialect): readonly string[] =>
  tensorsRead(source, dialect, dialect.cut(source, { tp: 1, pp: 1 })).flatMap(({ name, copy }) =>
    copy ? namesIn(name, dialect) : [],
  );

/**
 * All names by which libraries know a weight. Under only one of them, a library that uses the other would take a kept
 * weight for FP8 and load noise.
 */
function namesIn(name: string, { renamed }: Dialect): readonly string[] {
  if (renamed === undefined || !name.startsWith(renamed.stored)) return [name];
  return [name, renamed.loaded + name.slice(renamed.stored.length)];
}

/** Bytes of a side file: new, or stored in the checkpoint. */
export async function readSideFile(
  { store }: Pick<Checkpoint, "store">,
  file: Sidecar | WantedSidecar,
): Promise<Uint8Array> {
  if ("bytes" in file) return file.bytes;
  await using opened = await store.open(file.span.file);
  return await readRange(opened, file.span.offset, file.span.size);
}

export function textFile(path: string, text: string): WantedSidecar {
  return { path, bytes: new TextEncoder().encode(text) };
}
