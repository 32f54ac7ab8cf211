/** Opens a checkpoint by its address: finds the files, detects the format, reads the headers and adds hints. */
import type { Format } from "../../formats/format.ts";
import { CERTIFICATE_FILE, type Checkpoint, type Hints, type Remark } from "../core/checkpoint.ts";
import { IsologitError, withLocation } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import { readRange, type Store } from "../core/io.ts";
import { isJsonObject, parseJsonObject } from "../core/json.ts";
import { checkingStore } from "../core/sealed-spans.ts";
import type { HubStore } from "../hub/read/store.ts";
import { fileExists } from "../io/file.ts";
import type { PluginOptions } from "../plugins/plugin.ts";
import { registryOf } from "../plugins/registry.ts";
import type { SourceOptions } from "./options.ts";
import { unpackCodes } from "./scales/packed-codes.ts";
import { storeAt } from "./store.ts";
import { chooseWeights, dropCopies } from "./weight-choice.ts";

interface OpenOptions extends SourceOptions, PluginOptions {
  /** the formats that it may have; default: all */
  readonly formats?: readonly Format[];
  /** make side files that the format stores in another form; default true */
  readonly makeFiles?: boolean;
  /** files that are not part of the model are side files too */
  readonly keepExtra?: boolean | undefined;
  /** the data is read more than once: files of the Hub are fetched once, into the cache */
  readonly keep?: boolean;
  /** compare read bytes with the digests that the format stores; default true */
  readonly sealed?: boolean;
  readonly watch?: Watch | undefined;
}

/**
 * Opens a checkpoint. Only headers, configs and side files are read.
 *
 * @param address path or `hf://` address
 * @param asked facts about the checkpoint that the user gives, and plug-ins
 * @throws NOT_FOUND, FORMAT_UNKNOWN, FORMAT_AMBIGUOUS, and the errors of the format's reader; USAGE: a given fact contradicts
 *   the checkpoint. Each error names the address
 */
export async function openCheckpoint(address: string, asked: OpenOptions = {}): Promise<Checkpoint> {
  try {
    return await withHints(await readAt(address, asked), asked);
  } catch (error) {
    throw withLocation(error, { file: address });
  }
}

/** Reads the checkpoint at an address. @throws the error of a near miss, if the near miss is known */
async function readAt(address: string, asked: OpenOptions): Promise<Checkpoint> {
  const { formats = registryOf(asked).formats } = asked;
  let opened: Store | HubStore | undefined;
  try {
    opened = await storeAt(address, asked.keep, asked.watch);
    return await checkpointIn(opened, formats, asked);
  } catch (error) {
    const { recognise } = await import("./near-misses/recognise.ts"); // only after a failure
    throw await recognise(error, { address, formats, store: opened });
  }
}

async function checkpointIn(
  store: Store | HubStore,
  formats: readonly Format[],
  asked: OpenOptions,
): Promise<Checkpoint> {
  const answers = await Promise.all(
    formats.map(async (format) => ({ format, answer: await format.detect(store) })),
  );
  const [first, second] =
    ["yes", "maybe"]
      .map((answer) => answers.filter((a) => a.answer === answer))
      .find((found) => found.length > 0) ?? [];
  if (first === undefined) throw new IsologitError("FORMAT_UNKNOWN", "no known format is found here");
  if (second !== undefined) {
    throw new IsologitError("FORMAT_AMBIGUOUS", `it is both ${first.format.id} and ${second.format.id}`);
  }
  const { iteration } = asked;
  if (iteration !== undefined && first.format.iterations !== true) {
    throw new IsologitError(
      "USAGE",
      `\`iteration\` is ${iteration}, but ${first.format.id} holds one checkpoint`,
    );
  }
  const { makeFiles = true } = asked;
  const checkpoint = unpackCodes(
    await first.format.read(store, { makeFiles, ...(iteration !== undefined && { iteration }) }),
  );
  const sidecars = checkpoint.sidecars.filter(({ path }) => path !== CERTIFICATE_FILE);
  const read = { ...checkpoint, sidecars };
  const { keepExtra = false } = asked;
  const files =
    checkpoint.format === "hf"
      ? await chooseWeights(read, registryOf(asked).families, keepExtra)
      : await withUnfinishedRemark(dropCopies(read, keepExtra));
  const stored = asked.keep && "cachingStore" in store ? withCachingStore(files, store, asked.watch) : files;
  return asked.sealed === false ? stored : { ...stored, store: checkingStore(stored.store, stored.seals) };
}

/** Adds a remark if NeMo's marker beside a checkpoint exists. NeMo removes it after the last write. */
async function withUnfinishedRemark(checkpoint: Checkpoint): Promise<Checkpoint> {
  const root = checkpoint.format === "nemo2" ? checkpoint.store.roots?.[0] : undefined;
  const marker = `${root}-unfinished`;
  if (root === undefined || !(await fileExists(marker))) return checkpoint;
  const message = "NeMo's marker beside the checkpoint says that it was not written to its end";
  const remark: Remark = { rule: "unfinished", severity: "warning", at: { file: marker }, message };
  return { ...checkpoint, remarks: [...(checkpoint.remarks ?? []), remark] };
}

/** The headers were read with range requests. From here on, the first read of a file downloads the whole file. */
function withCachingStore(checkpoint: Checkpoint, store: HubStore, watch: Watch | undefined): Checkpoint {
  const files = checkpoint.tensors.flatMap(({ pieces }) => pieces.map(({ file }) => file));
  const caching = store.cachingStore([...new Set(files)], watch);
  // A reader adds files of its own, such as those made from keys, under paths that begin with a slash; the Hub has none of them.
  const open = (path: string) => (path.startsWith("/") ? checkpoint.store : caching).open(path);
  return { ...checkpoint, store: { ...caching, open } };
}

/** Adds facts that the config does not have: the vocabulary of the tokenizer or of the user, and the `like` checkpoint. */
async function withHints(checkpoint: Checkpoint, asked: OpenOptions): Promise<Checkpoint> {
  const like = asked.like === undefined ? undefined : await openLike(asked.like, asked);
  const vocab = await vocabularyOf(checkpoint, asked);
  const known: Hints = { ...(like !== undefined && { like }), ...(vocab !== undefined && { vocab }) };
  return Object.keys(known).length === 0 ? checkpoint : { ...checkpoint, hints: known };
}

/** @throws as `openCheckpoint`; the message names the option, because the fault is not in the source */
async function openLike(address: string, { plugins }: PluginOptions): Promise<Checkpoint> {
  try {
    return await openCheckpoint(address, { plugins });
  } catch (error) {
    if (!(error instanceof IsologitError)) throw error;
    const { code, message, at, next, cause } = error;
    throw new IsologitError(code, `\`like\`: ${message}`, at, { cause, next });
  }
}

/** Undefined if the config has the vocabulary, or if it is unknown. */
async function vocabularyOf(checkpoint: Checkpoint, asked: OpenOptions): Promise<number | undefined> {
  const dialects = registryOf(asked).families.flatMap((family) => family.dialects);
  const configured = dialects
    .filter(({ id }) => id === checkpoint.dialect)
    .map((dialect) => dialect.vocabulary(checkpoint.config))
    .find((vocab) => vocab !== undefined);
  const tokens = configured === undefined ? await tokensOf(checkpoint) : undefined;
  const known = configured ?? tokens;
  if (known !== undefined && asked.vocabSize !== undefined && asked.vocabSize !== known) {
    const by = configured === undefined ? "tokenizer" : "config";
    throw new IsologitError("USAGE", `\`vocabSize\` is ${asked.vocabSize}, but its ${by} says ${known}`);
  }
  return tokens ?? (configured === undefined ? asked.vocabSize : undefined);
}

/** Limit of a tokenizer file; a tokenizer of 131,072 tokens has 17 MB. */
const MAX_TOKENIZER_BYTES = 256 * 1024 * 1024;

/** Number of rows that the ids of the tokenizer need; undefined without a tokenizer. */
export async function tokensOf({ sidecars, store }: Checkpoint): Promise<number | undefined> {
  const file = "tokenizer.json";
  const tokenizer = sidecars.find(({ path }) => path === file);
  if (tokenizer === undefined || tokenizer.span.size > MAX_TOKENIZER_BYTES) return undefined;
  await using source = await store.open(tokenizer.span.file);
  const { model, added_tokens: added } = parseJsonObject(
    await readRange(source, tokenizer.span.offset, tokenizer.span.size),
    { file },
  );
  const vocab = isJsonObject(model) && isJsonObject(model.vocab) ? Object.values(model.vocab) : [];
  const more = Array.isArray(added) ? added.map((token) => (isJsonObject(token) ? token.id : null)) : [];
  let most = -1;
  for (const id of [...vocab, ...more]) if (typeof id === "number") most = Math.max(most, id);
  return most < 0 ? undefined : most + 1;
}
