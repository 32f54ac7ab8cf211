/** The text of a destination's config.json, where it differs from the source's: after a recast, or with an untied head. */
import type { WantedSidecar, Writer } from "../../formats/format.ts";
import { MODELOPT_CONFIG } from "../checkpoint/declared-quantization.ts";
import type { LoadedModel } from "../checkpoint/load.ts";
import type { Checkpoint, Sidecar } from "../core/checkpoint.ts";
import { isFp8 } from "../core/dtype.ts";
import { readRange } from "../core/io.ts";
import { parseJsonObject } from "../core/json.ts";
import type { Dialect } from "../families/dialect.ts";
import { withMember } from "../quantization/json-edit.ts";
import {
  type QuantizationKind,
  withDtype,
  withoutQuantization,
  withQuantization,
} from "../quantization/kind.ts";
import type { Policy } from "../quantization/policy.ts";
import type { Job } from "./types.ts";

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
  readonly quantization: QuantizationKind;
}

/** Replaces config.json in `files` where its text must change. @returns warnings */
export async function rewriteConfig(files: SideFileMap, request: ConfigRequest): Promise<readonly string[]> {
  const { source, writer, jobs } = request;
  const untied = await untieHead(files, source, writer);
  const config = files.get(CONFIG);
  if (config === undefined || jobs.every(({ cast }) => cast === undefined)) return untied;
  const bytes = await readSideFile(source.checkpoint, config);
  const before = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  const { text, warnings } = recastText(before, request);
  files.set(CONFIG, textFile(CONFIG, text));
  files.delete(MODELOPT_CONFIG); // it describes the weights before the recast
  return [...untied, ...warnings];
}

/** Other software stores the head apart from the token table, and may have trained it apart. */
async function untieHead(
  files: SideFileMap,
  { dialect, checkpoint }: LoadedModel,
  writer: Writer,
): Promise<readonly string[]> {
  const config = files.get(CONFIG);
  if (config === undefined || dialect.id === CONFIG_DIALECT || writer.config !== "file") return [];
  const bytes = await readSideFile(checkpoint, config);
  const key = "tie_word_embeddings";
  if (parseJsonObject(bytes, { file: CONFIG, nonFinite: true })[key] !== true) return [];
  const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  files.set(CONFIG, textFile(CONFIG, withMember(text, key, false)));
  return [`${key} is written as false in ${CONFIG}: the head is stored, and may have been trained apart`];
}

/** config.json's text after a recast. */
function recastText(text: string, { source, jobs, policy, dialect, quantization }: ConfigRequest) {
  const fp8 = jobs.filter(({ tensor }) => isFp8(tensor.dtype));
  if (jobs.some(({ cast }) => cast !== undefined && isFp8(cast.to))) {
    const linear = jobs.filter(({ role, tensor }) => {
      return (
        (role?.spec.kind === "matrix" || role?.spec.kind === "router") && tensor.name.endsWith(".weight")
      );
    });
    const kept = linear.filter(({ tensor }) => !isFp8(tensor.dtype)).map(({ tensor }) => tensor.name);
    const { config, warnings } = quantization.describe({
      cast: fp8.map(({ tensor }) => tensor.name),
      kept: kept.flatMap((name) => namesIn(name, dialect)),
      dtype: fp8[0]!.tensor.dtype,
    });
    return { text: withQuantization(text, config), warnings };
  }
  const plain = source.scales.scaleOf.size > 0 && fp8.length === 0 ? withoutQuantization(text) : text;
  return { text: policy.torchDtype === null ? plain : withDtype(plain, policy.torchDtype), warnings: [] };
}

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
