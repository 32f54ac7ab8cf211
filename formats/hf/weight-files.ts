/** Finds the weight files of a Hugging Face folder: by names, then by headers. */
import type { Remark } from "../../src/core/checkpoint.ts";
import { IsologitError, withLocation } from "../../src/core/errors.ts";
import { readSmall, type Store } from "../../src/core/io.ts";
import { type Header, readHeader } from "../codec/safetensors.ts";
import { firstNames, MAX_INDEX_BYTES, parseIndex, type WeightIndex } from "./index-json.ts";
import { INDEX, SINGLE } from "./place.ts";

/** Headers read at the same time: enough to hide the latency of the Hub, and below any limit on open files. */
const HEADERS_AT_ONCE = 8;

/** macOS writes such a file beside each file that it copies; it does not belong to the model. */
export function isAppleDouble(path: string): boolean {
  return /(^|\/)\._[^/]*$/.test(path);
}

/** Weights of a PEFT adapter, which are not weights of the model. */
const ADAPTER = /^adapter_/;

/** The weight files of a folder by their names. "loose": no single file and no index says which files they are. */
type WeightFileChoice =
  | { readonly by: "single" | "index" }
  | { readonly by: "loose"; readonly files: readonly string[] };

/**
 * The single file if it exists, because Transformers loads it; else the files that an index names; else every
 * `.safetensors` file at the top. Null if there is none.
 */
export function chooseWeightFiles(paths: readonly string[]): WeightFileChoice | null {
  if (paths.includes(SINGLE)) return { by: "single" };
  if (paths.includes(INDEX)) return { by: "index" };
  const loose = paths.filter(
    (path) => !path.includes("/") && path.endsWith(".safetensors") && !isAppleDouble(path),
  );
  const models = loose.filter((path) => !ADAPTER.test(path));
  const files = models.length > 0 ? models : loose;
  return files.length === 0 ? null : { by: "loose", files };
}

interface ReadWeights {
  /** header of each file, in the order of files */
  readonly headers: readonly (readonly [string, Header])[];
  /** the index to compare with the headers */
  readonly index: WeightIndex | null;
  readonly remarks: readonly Remark[];
}

/** @throws errors of an index or a header; INDEX_MISMATCH, FORMAT_AMBIGUOUS if it is unclear which files belong to the model */
export async function readWeights(
  store: Store,
  named: WeightFileChoice,
  paths: ReadonlySet<string>,
): Promise<ReadWeights> {
  switch (named.by) {
    case "single": {
      const index = paths.has(INDEX) ? await indexBeside(store) : null;
      if (index !== null && "files" in index && index.files.length > 1 && index.files.includes(SINGLE)) {
        return await readIndexed(store, index, paths, [singleNamed(index)]);
      }
      const headers = await readHeaders(store, [SINGLE]);
      if (index === null) return { headers, index: null, remarks: [] };
      const remarks = "rule" in index ? [index] : besideSingle(headers[0]![1], index, paths);
      return { headers, index: null, remarks };
    }
    case "index":
      return await readIndexed(store, await readIndex(store), paths, []);
    case "loose": {
      const files = named.files.length === 1 ? named.files : completeSet(named.files);
      const headers = await readHeaders(store, files);
      if (files.length === 1) return { headers, index: null, remarks: otherName(files[0]!, paths) };
      refuseTwice(headers);
      const message = `${files.length} weight files and no ${INDEX}: vLLM and SGLang read them all, Transformers finds no weights`;
      const remark: Remark = { rule: "index-missing", severity: "error", at: { file: INDEX }, message };
      return { headers, index: null, remarks: [remark] };
    }
    default:
      return named satisfies never;
  }
}

async function readIndexed(
  store: Store,
  index: WeightIndex,
  paths: ReadonlySet<string>,
  remarks: readonly Remark[],
): Promise<ReadWeights> {
  await refuseLost(store, index, paths);
  return { headers: await readHeaders(store, index.files), index, remarks };
}

/** The index beside a single file. Loaders of that file do not read it, so damage is a remark, not an error. */
async function indexBeside(store: Store): Promise<WeightIndex | Remark> {
  try {
    return await readIndex(store);
  } catch (error) {
    if (!(error instanceof IsologitError) || error.exit !== 3) throw error;
    const message = `it cannot be read (${error.message}); ${SINGLE} is read without it`;
    return { rule: "index-stale", severity: "error", at: { file: INDEX }, message };
  }
}

function singleNamed({ files }: WeightIndex): Remark {
  const message = `it names ${SINGLE} and ${counted(files.length - 1, "other file")}: all are read, but Transformers loads ${SINGLE} alone`;
  return { rule: "two-sets", severity: "error", at: { file: INDEX }, message };
}

/** A remark if the only weight file of a folder has a name that Transformers does not look for. Outside a folder any name is valid. */
function otherName(file: string, paths: ReadonlySet<string>): readonly Remark[] {
  if (file === SINGLE || !paths.has("config.json")) return [];
  const message = `it is the only weight file here and read under this name, as by vLLM and SGLang; Transformers looks only for ${SINGLE}`;
  return [{ rule: "weights-name", severity: "warning", at: { file }, message }];
}

/** @throws like `parseIndex` */
async function readIndex(store: Store): Promise<WeightIndex> {
  const bytes = await readSmall(store, INDEX, MAX_INDEX_BYTES).catch((error) => {
    throw withLocation(error, { file: INDEX });
  });
  return parseIndex(bytes, INDEX, store);
}

/** Headers in the order of files. Of several errors, the first in that order is thrown, whichever read ends first. */
export async function readHeaders(store: Store, files: readonly string[]): Promise<[string, Header][]> {
  const headers: [string, Header][] = [];
  for (let i = 0; i < files.length; i += HEADERS_AT_ONCE) {
    const some = files.slice(i, i + HEADERS_AT_ONCE);
    const settled = await Promise.allSettled(some.map((path) => headerOf(store, path)));
    for (const [k, result] of settled.entries()) {
      if (result.status === "rejected") throw withLocation(result.reason, { file: some[k]! });
      headers.push([some[k]!, result.value]);
    }
  }
  return headers;
}

async function headerOf(store: Store, path: string): Promise<Header> {
  await using source = await store.open(path);
  return await readHeader(source, path);
}

/** A single file beside an index of other files: Transformers loads the file, vLLM and SGLang load the files of the index. */
function besideSingle(header: Header, index: WeightIndex, paths: ReadonlySet<string>): readonly Remark[] {
  if (index.files.every((path) => path === SINGLE)) return [];
  if (!index.files.every((path) => paths.has(path))) {
    const message = `it names files that are not here: ${SINGLE} is read, which vLLM and SGLang leave out by this index`;
    return [{ rule: "index-stale", severity: "error", at: { file: INDEX }, message }];
  }
  const held = new Set(header.tensors.map(({ name }) => name));
  const lacking = [...index.fileOf.keys()].filter((name) => !held.has(name));
  const others = `${counted(index.files.length, "file")} that ${INDEX} names`;
  const sets = `two sets of weights: ${SINGLE} holds ${counted(held.size, "tensor")}, and ${others} hold ${index.fileOf.size}`;
  if (lacking.length > 0) {
    const message = `${sets}; Transformers loads the single file, which lacks ${firstNames(lacking)}`;
    const next = `remove ${SINGLE}, or else ${INDEX} and the files that it names`;
    throw new IsologitError("INDEX_MISMATCH", message, { file: SINGLE }, { next });
  }
  const message = `${sets}; the single file is read, as by Transformers, where vLLM and SGLang read the others`;
  return [{ rule: "two-sets", severity: "error", at: { file: SINGLE }, message }];
}

/** @throws INDEX_MISMATCH if an index names other files than those in the folder; NOT_FOUND if some of its files are missing */
async function refuseLost(store: Store, index: WeightIndex, paths: ReadonlySet<string>): Promise<void> {
  const lost = index.files.filter((path) => !paths.has(path));
  if (lost.length === 0) return;
  const named = `${INDEX} names ${lost.length === 1 ? "a weight file that is" : `${lost.length} weight files that are`} not there`;
  const other = chooseWeightFiles([...paths].filter((path) => path !== INDEX));
  if (lost.length === index.files.length && other?.by === "loose") {
    const headers = await readHeaders(store, other.files).catch(() => []);
    const held = new Set(headers.flatMap(([, { tensors }]) => tensors.map(({ name }) => name)));
    const lacking = [...index.fileOf.keys()].filter((name) => !held.has(name));
    const here = counted(other.files.length, "other weight file");
    const message =
      lacking.length === 0
        ? `${named}; ${here} here hold all ${index.fileOf.size} tensors that it lists`
        : `${named}; ${here} here lack ${firstNames(lacking)}`;
    const next =
      lacking.length === 0 ? `remove ${INDEX}: without it the files that are here are read` : undefined;
    throw new IsologitError(
      "INDEX_MISMATCH",
      message,
      { file: lost[0]! },
      next === undefined ? {} : { next },
    );
  }
  throw new IsologitError("NOT_FOUND", named, { file: lost[0]! });
}

/** `model-00002-of-00003.safetensors`: the text before the number, the number, and the number of files. */
const NUMBERED = /^(.*?)(\d{2,})-of-(\d{2,})\.safetensors$/;

/** Of numbered files, the one complete set; of other files, all. */
function completeSet(files: readonly string[]): readonly string[] {
  const sets = new Map<string, { count: number; files: Map<number, string> }>();
  for (const file of files) {
    const [, stem, number, count] = NUMBERED.exec(file) ?? [];
    if (stem === undefined) continue;
    const key = `${stem} ${count}`;
    const set = sets.get(key) ?? { count: Number(count), files: new Map() };
    set.files.set(Number(number), file);
    sets.set(key, set);
  }
  if (sets.size === 0) return files;
  const whole = [...sets.values()].filter((set) => set.files.size === set.count);
  if (whole.length === 1) return [...whole[0]!.files.values()];
  const next = `remove the files that do not belong to the model, or write ${INDEX}`;
  if (whole.length > 1) {
    const [first, other] = whole.map((set) => [...set.files.values()][0]!);
    const message = `${first} and ${other} begin two whole sets of weights, and no ${INDEX} says which counts`;
    throw new IsologitError("FORMAT_AMBIGUOUS", message, { file: other! }, { next });
  }
  const [part] = sets.values();
  const lost = Array.from({ length: part!.count }, (_, i) => i + 1).find((n) => !part!.files.has(n));
  const message = `${part!.files.size} of ${part!.count} weight files are here, and no ${INDEX}; number ${lost} is missing`;
  throw new IsologitError(
    "INDEX_MISMATCH",
    message,
    { file: [...part!.files.values()][0]! },
    {
      next: "fetch the missing files, of the same revision",
    },
  );
}

/** @throws FORMAT_AMBIGUOUS */
function refuseTwice(headers: readonly (readonly [string, Header])[]): void {
  const found = new Map<string, string>();
  for (const [file, { tensors }] of headers) {
    for (const { name } of tensors) {
      const other = found.get(name);
      if (other !== undefined) {
        const message = `${other} holds it too, and no ${INDEX} says which counts`;
        const next = `remove the files that do not belong to the model, or write ${INDEX}`;
        throw new IsologitError("FORMAT_AMBIGUOUS", message, { file, tensor: name }, { next });
      }
      found.set(name, file);
    }
  }
}

function counted(count: number, what: string): string {
  return `${count} ${what}${count === 1 ? "" : "s"}`;
}
