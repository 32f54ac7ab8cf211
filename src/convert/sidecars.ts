/**
 * Side files of a destination: what travels, what is written anew, what a destination cannot say and so keeps in
 * `isologit.origin/`, and what comes home from there.
 */
import type { WantedSidecar, WriteRequest, Writer } from "../../formats/format.ts";
import { MODELOPT_CONFIG } from "../checkpoint/declared-quantization.ts";
import type { ScaleTable } from "../checkpoint/scales.ts";
import { ORIGIN_FOLDER, ORIGIN_HEADERS, ORIGIN_ROOT, UNKNOWN_ROOT } from "../core/carried-files.ts";
import type { Checkpoint, Sidecar } from "../core/checkpoint.ts";
import { isFp8 } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { canonicalJson } from "../core/hash.ts";
import { readRange } from "../core/io.ts";
import { parseJsonObject } from "../core/json.ts";
import { shapeOf } from "../core/mapping/layout.ts";
import { Sources } from "../core/read.ts";
import type { Dialect } from "../families/dialect.ts";
import { tensorsWritten } from "../families/expand.ts";
import { dialectOf } from "../families/match.ts";
import type { Matched } from "../families/model.ts";
import type { Config, Settings } from "../families/structure.ts";
import {
  quantizationConfig,
  withDtype,
  withoutQuantization,
  withQuantization,
} from "../quantization/compressed-tensors.ts";
import { withMember } from "../quantization/json-edit.ts";
import type { Policy } from "../quantization/policy.ts";
import type { Job } from "./types.ts";

const CONFIG = "config.json";
/** The dialect whose config is that file. */
const HF = "hf";

export interface SidecarRequest {
  readonly source: Matched;
  readonly writer: Writer;
  readonly dialect: Dialect;
  readonly jobs: readonly Job[];
  readonly scales: ScaleTable;
  readonly policy: Policy;
  /** the record that the destination's software reads, for a model that comes from another's */
  readonly config: Config;
  /** take back what an earlier conversion kept */
  readonly restore: boolean;
}

export interface SidecarFiles extends Pick<WriteRequest, "sidecars" | "weightFiles"> {
  readonly warnings: readonly string[];
  /** what an earlier conversion kept came home */
  readonly restored: boolean;
}

export async function planSidecars(wanted: SidecarRequest): Promise<SidecarFiles> {
  const { source, writer, jobs } = wanted;
  const { checkpoint } = source;
  const home = wanted.restore ? await homecoming(source) : { files: [], headers: [], warnings: [] };
  const files = new Map<string, Sidecar | WantedSidecar>();
  for (const file of [...(await likeFiles(source)), ...home.files, ...checkpoint.sidecars]) {
    files.set(file.path, file);
  }
  if (writer.software === HF && !files.has(CONFIG))
    files.set(CONFIG, written(CONFIG, jsonText(wanted.config)));
  const warnings = [...home.warnings, ...(await rewriteConfig(files, wanted))];
  const headers = [...(await headersOf(checkpoint, checkpoint.weightFiles)), ...home.headers];
  const exact = jobs.every(({ cast }) => cast === undefined);
  const takes = (path: string) => writer.takes?.(path) ?? true;
  const all = [...files.values()];
  const kept = [
    ...all.filter(({ path }) => !takes(path)),
    ...(writer.software !== HF && exact
      ? headers.map(({ path, header }) => ({ path: ORIGIN_HEADERS + path, bytes: header }))
      : []),
  ].map((file) => ({ ...file, path: ORIGIN_FOLDER + file.path }));
  if (kept.length > 0) kept.push(written(ORIGIN_FOLDER + ORIGIN_ROOT, `${UNKNOWN_ROOT}\n`));
  return {
    sidecars: [...all.filter(({ path }) => takes(path)), ...kept].sort((a, b) => (a.path < b.path ? -1 : 1)),
    weightFiles: writer.software === HF ? headers : [],
    warnings,
    restored: home.files.length + home.headers.length > 0,
  };
}

const written = (path: string, text: string): WantedSidecar => ({
  path,
  bytes: new TextEncoder().encode(text),
});

function jsonText(config: Config): string {
  return `${JSON.stringify(config, null, 2)}\n`;
}

interface Homecoming {
  readonly files: readonly Sidecar[];
  readonly headers: WriteRequest["weightFiles"];
  readonly warnings: readonly string[];
}

/** What was kept of the folder that the model came from, where its config still describes this model. */
async function homecoming(source: Matched): Promise<Homecoming> {
  const { carriedFiles, store } = source.checkpoint;
  if (carriedFiles === undefined) return { files: [], headers: [], warnings: [] };
  const files = carriedFiles.sidecars.filter(({ path }) => !path.startsWith(ORIGIN_HEADERS));
  const config = files.find(({ path }) => path === CONFIG);
  if (config !== undefined) {
    const then = await bytesOf(source.checkpoint, config);
    const shards = carriedFiles.sidecars
      .filter(({ path }) => path.startsWith(ORIGIN_HEADERS))
      .map(({ path }) => path.slice(ORIGIN_HEADERS.length));
    const unlike = otherModel(source, () => settingsIn(then, source, shards));
    if (unlike !== null) return { files: [], headers: [], warnings: [unlike] };
  }
  const spelt = carriedFiles.sidecars
    .filter(({ path }) => path.startsWith(ORIGIN_HEADERS))
    .map(({ path, span }) => ({ path: path.slice(ORIGIN_HEADERS.length), header: span }));
  return { files, headers: await headersOf({ store }, spelt), warnings: [] };
}

/**
 * What a config.json says of a model that holds what this one would hold there: a config may tell of layers that the
 * folder lacked.
 *
 * @param shards weight files beside it; none: they are not known
 */
function settingsIn(config: Uint8Array, source: Matched, shards: readonly string[]): Settings {
  const hf = dialectOf(source.family, HF);
  const tensors = tensorsWritten(source, hf).map(({ name, layout }) => ({ name, shape: shapeOf(layout) }));
  const read = parseJsonObject(config, { file: CONFIG, nonFinite: true });
  return hf.settings(read, { tensors, ...(shards.length > 0 && { files: shards }) }).settings;
}

/** Why what was kept does not belong to these weights; null where it does. */
function otherModel({ settings }: Matched, read: () => Settings): string | null {
  try {
    if (canonicalJson(read()) === canonicalJson(settings)) return null;
    return `${ORIGIN_FOLDER} belongs to another model than the weights beside it: it stays where it is`;
  } catch (error) {
    if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
    return `${ORIGIN_FOLDER}${CONFIG} is refused, and what was kept stays where it is: ${error.message}`;
  }
}

/** @throws CONFIG_INVALID where the config of a like model is refused, or says another model than the source */
function refuseUnlike(like: Checkpoint, { settings }: Matched, read: () => Settings): void {
  const refusal = (message: string, cause?: unknown) => {
    const next = "give `like` a checkpoint of the same architecture";
    const said = `\`like\` ${like.store.url}: ${message}`;
    return new IsologitError("CONFIG_INVALID", said, { file: CONFIG }, { next, cause });
  };
  let said: Settings;
  try {
    said = read();
  } catch (error) {
    if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
    throw refusal(error.message, error);
  }
  if (canonicalJson(said) !== canonicalJson(settings))
    throw refusal("its config says another model than the source is");
}

/**
 * Side files of a like model, read whole: they lie in another store.
 *
 * @throws CONFIG_INVALID for a config.json that says another model than the source
 */
async function likeFiles(source: Matched): Promise<readonly WantedSidecar[]> {
  const { like } = source.checkpoint.hints ?? {};
  if (like === undefined) return [];
  // its index, if it has one, tells where its own weights are
  const named = like.sidecars.filter(({ path }) => !path.endsWith(".safetensors.index.json"));
  const files = await Promise.all(
    named.map(async (file) => ({ path: file.path, bytes: await bytesOf(like, file) })),
  );
  const config = files.find(({ path }) => path === CONFIG);
  if (config !== undefined) refuseUnlike(like, source, () => settingsIn(config.bytes, source, []));
  return files;
}

async function bytesOf({ store }: Pick<Checkpoint, "store">, { span }: Sidecar): Promise<Uint8Array> {
  await using file = await store.open(span.file);
  return await readRange(file, span.offset, span.size);
}

/** Replaces config.json where a recast changes what it must say. */
async function rewriteConfig(
  files: Map<string, Sidecar | WantedSidecar>,
  { source, writer, jobs, scales, policy, dialect }: SidecarRequest,
): Promise<readonly string[]> {
  const untied = await untie(files, source, writer);
  const config = files.get(CONFIG);
  if (config === undefined || jobs.every(({ cast }) => cast === undefined)) return untied;
  const stored = "bytes" in config ? config.bytes : await bytesOf(source.checkpoint, config);
  const before = new TextDecoder("utf-8", { fatal: true }).decode(stored);
  const { text, warnings } = configFor(before, jobs, scales, policy, dialect);
  files.set(CONFIG, written(CONFIG, text));
  files.delete(MODELOPT_CONFIG); // the weights that it describes are recast
  return [...untied, ...warnings];
}

/** The head of a model of other software is stored, and may have been trained apart: a config that ties it is changed. */
async function untie(
  files: Map<string, Sidecar | WantedSidecar>,
  { dialect, checkpoint }: Matched,
  writer: Writer,
): Promise<readonly string[]> {
  const config = files.get(CONFIG);
  if (config === undefined || dialect.id === HF || writer.software !== HF) return [];
  const bytes = "bytes" in config ? config.bytes : await bytesOf(checkpoint, config);
  const key = "tie_word_embeddings";
  if (parseJsonObject(bytes, { file: CONFIG, nonFinite: true })[key] !== true) return [];
  const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  files.set(CONFIG, written(CONFIG, withMember(text, key, false)));
  return [`${key} is written as false in ${CONFIG}: the head is stored, and may have been trained apart`];
}

/** config.json's text after a recast. */
function configFor(text: string, jobs: readonly Job[], scales: ScaleTable, policy: Policy, dialect: Dialect) {
  const fp8 = jobs.filter(({ tensor }) => isFp8(tensor.dtype));
  if (jobs.some(({ cast }) => cast !== undefined && isFp8(cast.to))) {
    const linear = jobs.filter(({ role, tensor }) => {
      return (
        (role?.spec.kind === "matrix" || role?.spec.kind === "router") && tensor.name.endsWith(".weight")
      );
    });
    const kept = linear.filter(({ tensor }) => !isFp8(tensor.dtype)).map(({ tensor }) => tensor.name);
    const { config, warnings } = quantizationConfig(
      fp8.map(({ tensor }) => tensor.name),
      kept.flatMap((name) => spellings(name, dialect)),
      fp8[0]!.tensor.dtype,
    );
    return { text: withQuantization(text, config), warnings };
  }
  const plain = scales.scaleOf.size > 0 && fp8.length === 0 ? withoutQuantization(text) : text;
  return { text: policy.torchDtype === null ? plain : withDtype(plain, policy.torchDtype), warnings: [] };
}

/** A kept weight listed under one name only is quantised by the library that knows it by the other: it loads noise. */
function spellings(name: string, { renamed }: Dialect): readonly string[] {
  if (renamed === undefined || !name.startsWith(renamed.stored)) return [name];
  return [name, renamed.loaded + name.slice(renamed.stored.length)];
}

/** Every byte before the first tensor, of each weight file. */
async function headersOf(
  { store }: Pick<Checkpoint, "store">,
  shards: Checkpoint["weightFiles"],
): Promise<WriteRequest["weightFiles"]> {
  await using sources = new Sources(store);
  const headers: { path: string; header: Uint8Array }[] = [];
  for (const { path, header } of shards) {
    headers.push({
      path,
      header: await sources.bytes(header.file, header.offset, header.size),
    });
  }
  return headers;
}
