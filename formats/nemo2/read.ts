/** Reads a NeMo 2 folder: the config in `context/`, the weights, and the tokenizer. */

import { readCarriedFiles } from "../../src/core/carried-files.ts";
import type { Checkpoint } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { readSmall, type Store } from "../../src/core/io.ts";
import { parseJsonObject } from "../../src/core/json.ts";
import { type ConfigRecord, isRecord, MAX_YAML_BYTES, parseYaml } from "../codec/yaml.ts";
import { dropTokenizerFiles, sidecarsBelow } from "../tokenizer-files.ts";
import { readWeights } from "../torch-dist/weights.ts";
import { parseFiddle } from "./fiddle.ts";
import { CONTEXT, weightsAmong } from "./files.ts";

const MODEL_YAML = `${CONTEXT}model.yaml`;
const IO_JSON = `${CONTEXT}io.json`;
/** A graph takes some 500 bytes for each argument. */
const MAX_GRAPH_BYTES = 16 * 1024 * 1024;
/** The folder into which NeMo's importer copies a tokenizer. */
const TOKENIZER = "nemo_tokenizer";

/** @throws codes of exit status 3 */
export async function readNemo2(store: Store): Promise<Checkpoint> {
  const files = await store.list();
  const paths = files.map(({ path }) => path);
  const weights = weightsAmong(paths);
  if (weights === undefined) {
    throw new IsologitError("FORMAT_UNKNOWN", "there are no weights of NeMo 2 here", { file: store.url });
  }
  const { config, tokenizer } = await contextOf(store, paths);
  const passed = await passedIn(store, paths, config);
  const { tensors, objects, moduleStates, seals } = await readWeights(store, weights);
  const sidecars = tokenizer === undefined ? [] : sidecarsBelow(files, tokenizer);
  const artifacts = paths.filter((path) => isArtifact(path, tokenizer));
  const origin = dropTokenizerFiles(await readCarriedFiles(store));
  return {
    format: "nemo2",
    dialect: "megatron",
    config,
    ...passed,
    tensors,
    objects: [...objects, ...artifacts],
    moduleStates,
    sidecars,
    weightFiles: [],
    recasts: [],
    seals,
    ...(origin !== undefined && { carriedFiles: origin }),
    store,
  };
}

/** A pickled argument that fiddle could not express. It may contain code, so it is never opened. */
function isArtifact(path: string, tokenizer: string | undefined): boolean {
  if (!path.startsWith(CONTEXT) || path === MODEL_YAML || path === IO_JSON) return false;
  return tokenizer === undefined || !path.startsWith(tokenizer);
}

interface Context {
  readonly config: ConfigRecord;
  /** folder with the files of the tokenizer */
  readonly tokenizer: string | undefined;
}

/** model.yaml contains every resolved value; io.json contains only passed arguments, and the class has the rest. */
async function contextOf(store: Store, paths: readonly string[]): Promise<Context> {
  const model = await modelOf(store, paths);
  const { config, tokenizer } = model ?? {};
  if (model !== undefined && !isRecord(config)) {
    const file = paths.includes(MODEL_YAML) ? MODEL_YAML : IO_JSON;
    throw new IsologitError("CONFIG_INVALID", "the model has no config", { file });
  }
  const named = isRecord(tokenizer) ? tokenizer.pretrained_model_name : undefined;
  const folders = [named, TOKENIZER].map((name) => `${CONTEXT}${name}/`);
  const found = folders.find((folder) => paths.some((path) => path.startsWith(folder)));
  return { config: isRecord(config) ? config : {}, tokenizer: found };
}

async function modelOf(store: Store, paths: readonly string[]): Promise<ConfigRecord | undefined> {
  if (paths.includes(MODEL_YAML)) {
    return parseYaml(await readSmall(store, MODEL_YAML, MAX_YAML_BYTES), { file: MODEL_YAML });
  }
  return paths.includes(IO_JSON) ? graphOf(store) : undefined;
}

async function graphOf(store: Store): Promise<ConfigRecord> {
  const at = { file: IO_JSON };
  const graph = parseJsonObject(await readSmall(store, IO_JSON, MAX_GRAPH_BYTES), { ...at, nonFinite: true });
  const root = parseFiddle(graph, at);
  return isRecord(root.model) ? root.model : root;
}

/** The arguments in io.json, from which NeMo builds the model. model.yaml is for people and converters; it is read for its defaults. */
async function passedIn(
  store: Store,
  paths: readonly string[],
  resolved: ConfigRecord,
): Promise<Pick<Checkpoint, "loadedConfig" | "remarks">> {
  if (!paths.includes(MODEL_YAML) || !paths.includes(IO_JSON)) return {};
  try {
    const { config } = await graphOf(store);
    if (!isRecord(config)) return {};
    const [loaded, configured] = [config._target_, resolved._target_];
    if (loaded === configured || configured === undefined) return { loadedConfig: { file: IO_JSON, config } };
    // defaults are known only for NeMo's classes of this family
    const message = `NeMo makes a ${String(loaded)} of it, and ${MODEL_YAML} says ${String(configured)}: values that neither gives may differ`;
    const remark = { rule: "context-class", severity: "error", at: { file: IO_JSON }, message } as const;
    return { loadedConfig: { file: IO_JSON, config }, remarks: [remark] };
  } catch (error) {
    if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
    const message = `NeMo loads this file, but it could not be compared with ${MODEL_YAML}: ${error.message}`;
    const at = { file: IO_JSON };
    return { remarks: [{ rule: "context-unread", severity: "warning", at, message }] };
  }
}
