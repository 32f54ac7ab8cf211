/** The files beside the weights that a cut changes, in the style of the source. */
import { MODELOPT_CONFIG } from "../checkpoint/declared-quantization.ts";
import type { LoadedModel } from "../checkpoint/load.ts";
import { ORIGIN_HEADERS } from "../core/carried-files.ts";
import type { Sidecar } from "../core/checkpoint.ts";
import { type ByteSource, readRange, type Store } from "../core/io.ts";
import { parseJsonObject } from "../core/json.ts";
import { mainLayers } from "../families/model.ts";
import type { ConfigCut } from "../families/prunable.ts";
import { dialectOf } from "../families/recognise.ts";
import type { Config } from "../families/structure.ts";
import { memberText, withMember } from "../quantization/json-edit.ts";
import type { Cut } from "./cut.ts";
import { renumberJson } from "./renumber.ts";

const CONFIG = "config.json";
/** It says in which file of the source each tensor is. */
const INDEX = "model.safetensors.index.json";
/** Begins the names of files that exist only here; no path of a store begins with it. */
const MADE = "/cut:";
const DIALECT_OF_FILE = "hf";

/** A cut model, of which no file is changed yet, with the files of its source as the cut changes them. */
export async function withCutFiles(model: LoadedModel, source: LoadedModel, cut: Cut): Promise<LoadedModel> {
  const { checkpoint } = source;
  const { store, carriedFiles } = checkpoint;
  const change = configCut(source, model, cut);
  const made = new Map<string, Uint8Array>();
  const cutAll = async (files: readonly Sidecar[]) => {
    const kept = files.filter(({ path }) => path !== INDEX && !path.startsWith(ORIGIN_HEADERS));
    return await Promise.all(
      kept.map(async (sidecar) => {
        if (sidecar.path !== CONFIG && sidecar.path !== MODELOPT_CONFIG) return sidecar;
        await using file = await store.open(sidecar.span.file);
        const before = await readRange(file, sidecar.span.offset, sidecar.span.size);
        const text = new TextDecoder("utf-8", { fatal: true }).decode(before);
        const bytes = new TextEncoder().encode(cutText(sidecar.path, text, source, change));
        const name = `${MADE}${made.size}`;
        made.set(name, bytes);
        return { path: sidecar.path, span: { file: name, offset: 0, size: bytes.byteLength } };
      }),
    );
  };
  const config = { ...checkpoint.config, ...source.dialect.prunedKeys?.(checkpoint.config, change) };
  return {
    ...model,
    checkpoint: {
      ...checkpoint,
      config: change.layers === undefined ? config : withLists(config, change.layers, CONFIG),
      sidecars: await cutAll(checkpoint.sidecars),
      weightFiles: [], // their headers describe the tensors of the source
      ...(carriedFiles !== undefined && {
        carriedFiles: { ...carriedFiles, sidecars: await cutAll(carriedFiles.sidecars) },
      }),
      store: storeWith(store, made),
    },
  };
}

function configCut(source: LoadedModel, { settings }: LoadedModel, cut: Cut): ConfigCut {
  const changed = Object.entries(settings).filter(([name, value]) => source.settings[name] !== value);
  const isWhole = cut.layers.length === mainLayers(source).length;
  return {
    changed: Object.fromEntries(changed),
    ...(!isWhole && { layers: cut.layers }),
    before: source.settings,
  };
}

/** The text of a config, or of ModelOpt's description of quantized weights, with the keys that the cut changes. */
function cutText(path: string, text: string, { family }: LoadedModel, change: ConfigCut): string {
  const parsed = parseJsonObject(new TextEncoder().encode(text), { file: path, nonFinite: true });
  const keys = path === CONFIG ? (dialectOf(family, DIALECT_OF_FILE).prunedKeys?.(parsed, change) ?? {}) : {};
  const edited = Object.entries(keys).reduce((now, [key, value]) => withMember(now, key, value), text);
  if (change.layers === undefined) return edited;
  return Object.entries(withLists(parsed, change.layers, path)).reduce(
    (now, [key, value]) =>
      LISTS.includes(key) && memberText(now, key) !== undefined && value !== parsed[key]
        ? withMember(now, key, value)
        : now,
    edited,
  );
}

/** Keys whose values name quantized weights. */
const LISTS = ["quantization_config", "quantization"];

/** The values that name weights, with the new numbers of layers; a value that does not change stays the same object. */
function withLists(config: Config, layers: readonly number[], file: string): Config {
  const renewed = LISTS.flatMap((key) => {
    if (config[key] === undefined) return [];
    const value = renumberJson(config[key], layers, file);
    return JSON.stringify(value) === JSON.stringify(config[key]) ? [] : [[key, value] as const];
  });
  return { ...config, ...Object.fromEntries(renewed) };
}

/** A store with further files. */
export function storeWith(store: Store, made: ReadonlyMap<string, Uint8Array>): Store {
  return {
    ...store,
    open: async (path) => {
      const bytes = made.get(path);
      return bytes === undefined ? await store.open(path) : sourceOf(path, bytes);
    },
  };
}

function sourceOf(url: string, bytes: Uint8Array): ByteSource {
  return {
    url,
    size: bytes.byteLength,
    readInto: async (target, offset) => target.set(bytes.subarray(offset, offset + target.byteLength)),
    [Symbol.asyncDispose]: async () => {},
  };
}
