/**
 * The state that Transformer Engine stores for a module as `_extra_state`: the recipe of an FP8 training and, under delayed
 * scaling, scales and the history of magnitudes. From version 2 on, a module without FP8 stores no bytes, and a module with
 * FP8 a pickle inside a byte tensor; before, an archive of torch.save inside a BytesIO. Nothing in them is executed.
 */
import { bytesOf, countOf, type Shape } from "../../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";
import { type ByteSource, readRange } from "../../../src/core/io.ts";
import type { Meaning } from "../pickle/globals.ts";
import { type GlobalUse, readPickle } from "../pickle/read.ts";
import { storageBytes } from "../pickle/torch.ts";
import {
  entriesByText,
  expectKind,
  isKind,
  type PickleStorage,
  type PickleValue,
  unexpectedValueError,
} from "../pickle/value.ts";
import { memorySource } from "../slice.ts";
import { readTorch, type TorchArchive } from "../torch-zip/read.ts";
import { engineMeaning } from "./names.ts";

/** A history of 1,024 steps of 512 grouped matrices has 12 MiB. */
export const MAX_STATE_BYTES = 32 * 1024 * 1024;
/** A state has some ten tensors. */
const MAX_STORAGES = 64;

interface ExtraState {
  /** class of the recipe, such as `DelayedScaling` */
  readonly recipe: string;
  /** `HYBRID`: E4M3 forward, E5M2 backward; null if the state does not say */
  readonly format: string | null;
  /** number of stored scales, forward and backward; 0 for recipes that compute scales anew in each step */
  readonly scales: number;
  /** steps in the history of magnitudes; null without a history */
  readonly history: number | null;
}

/** Where the bytes of a state are: a part of a file, or at hand. */
type StatePayload = { readonly offset: number; readonly size: number } | Uint8Array;

/**
 * The payload of an `_extra_state` in an archive: of a byte tensor or a BytesIO. Null for None and other plain values, which
 * modules without FP8 and versions before 1.0 store.
 *
 * @throws PICKLE_REFUSED for the result of a call
 */
export function payloadOf(
  archive: TorchArchive,
  value: PickleValue | undefined,
  at: ErrorLocation,
): StatePayload | null {
  if (isKind(value, "tensor")) {
    const { offset } = archive.storages.get(value.storage.key)!; // the reader located every storage
    const size = bytesOf(value.dtype, value.shape, at);
    return size === 0 ? null : { offset: offset + bytesOf(value.dtype, [value.offset], at), size };
  }
  if (isKind(value, "record") && value.name === "_io.BytesIO") {
    const [given] = isKind(value.state, "tuple") ? value.state.items : value.args;
    if (given instanceof Uint8Array) return given.byteLength === 0 ? null : given;
  }
  if (!isKind(value, "opaque")) return null;
  throw unexpectedValueError(value, "a byte tensor or a BytesIO", "the extra state", at);
}

/** The payload of the `_extra_state` that an archive holds, alone or in a list of one. @throws as `readTorch` */
export async function readPayload(
  source: ByteSource,
  file: string,
  part: { readonly offset: number; readonly size: number },
): Promise<StatePayload | null> {
  const archive = await readTorch(source, { file, part });
  const { value } = archive;
  return payloadOf(archive, isKind(value, "list") ? value.items[0] : value, { file, offset: part.offset });
}

/**
 * @returns null if the state is None
 * @throws PICKLE_REFUSED if the state calls code other than that of torch and of the engine; PICKLE_INVALID, TRUNCATED and
 *   others for damage; LIMIT_EXCEEDED
 */
export async function readExtraState(
  source: ByteSource,
  payload: StatePayload,
  at: ErrorLocation & { readonly file: string },
): Promise<ExtraState | null> {
  const size = payload instanceof Uint8Array ? payload.byteLength : payload.size;
  if (size > MAX_STATE_BYTES) {
    const message = `the extra state of a module has ${size} bytes; at most ${MAX_STATE_BYTES} are read`;
    throw new IsologitError("LIMIT_EXCEEDED", message, at);
  }
  const bytes = payload instanceof Uint8Array ? payload : await readRange(source, payload.offset, size);
  try {
    const value = bytes[0] === 0x50 ? await readArchive(bytes, at) : readBare(bytes, at);
    return value === null ? null : stateOf(value, at);
  } catch (error) {
    if (!(error instanceof IsologitError)) throw error;
    // offsets in the state mean nothing in the file
    throw new IsologitError(error.code, `its extra state: ${error.message}`, at, { cause: error });
  }
}

async function readArchive(bytes: Uint8Array, { file }: { readonly file: string }): Promise<PickleValue> {
  return (
    await readTorch(memorySource(bytes, file), { file, moreMeanings: engineMeaning, onGlobal: refuseCall })
  ).value;
}

/**
 * The further names of a state without an archive. Each storage is an argument of a function there, in torch's format before
 * version 1.6.
 *
 * @param onGlobal called for the names in the pickles of storages
 */
export function stateMeanings(onGlobal: (use: GlobalUse) => void): (name: string) => Meaning | undefined {
  let storages = 0;
  const loadStorage: Meaning = {
    use: "function",
    make: ([given], at) => {
      if (!(given instanceof Uint8Array)) throw unexpectedValueError(given, "bytes", "a storage", at);
      if (++storages <= MAX_STORAGES) return parseStorage(given, onGlobal, at);
      throw new IsologitError("LIMIT_EXCEEDED", `more than ${MAX_STORAGES} tensors`, at);
    },
  };
  return (name) => (name === "torch.storage._load_from_bytes" ? loadStorage : engineMeaning(name));
}

function readBare(bytes: Uint8Array, { file }: { readonly file: string }): PickleValue {
  return readPickle(bytes, { file, moreMeanings: stateMeanings(refuseCall), onGlobal: refuseCall }).value;
}

/** First pickle of torch's format before version 1.6. */
const LEGACY_MAGIC = 0x1950a86a20f9469cfc6cn;

/** Five pickles (magic number, version, sizes of C types, storage, list of keys), then the number of elements and the elements. */
function parseStorage(
  bytes: Uint8Array,
  onGlobal: (use: GlobalUse) => void,
  at: ErrorLocation,
): PickleStorage {
  const values: PickleValue[] = [];
  let end = 0;
  while (values.length < 5) {
    const pickle = readPickle(bytes.subarray(end), { file: at.file ?? "", onGlobal });
    values.push(pickle.value);
    end += pickle.end;
  }
  const [magic, , , held] = values;
  if (magic !== LEGACY_MAGIC) throw new IsologitError("PICKLE_INVALID", "a storage has no magic number", at);
  const storage = expectKind(held, "storage", "the storage of a tensor", at);
  const size = storageBytes(storage, at);
  const found = bytes.byteLength - end - 8;
  if (found !== size)
    throw new IsologitError("TRUNCATED", `a storage has ${found} bytes, expected ${size}`, at);
  return storage;
}

function refuseCall({ name, called, listed, offset }: GlobalUse): void {
  if (!called || listed) return;
  const message = `it calls ${name}, which is never run`;
  throw new IsologitError("PICKLE_REFUSED", message, { offset });
}

function stateOf(value: PickleValue, at: ErrorLocation): ExtraState {
  const fields = entriesByText(value, "the state", at);
  const shapeOf = (name: string): Shape | null => {
    const held = fields.get(name);
    if (held === undefined) return null;
    const { dtype, shape } = expectKind(held, "tensor", name, at);
    if (dtype === "F32") return shape;
    throw new IsologitError("PICKLE_INVALID", `${name} is ${dtype}, expected F32`, at);
  };
  const recipe = fields.get("recipe");
  const extra = fields.get("extra_fp8_variables");
  const maxima = isKind(extra, "dict") ? entriesByText(extra, "its variables", at) : null;
  const named = isKind(recipe, "record") ? recipe : null;
  return {
    // before version 2 there was one recipe, and its state did not name it
    recipe: named === null ? "DelayedScaling" : named.name.slice(named.name.lastIndexOf(".") + 1),
    format: formatOf(named?.fields.get("fp8_format")) ?? formatOfMaxima(maxima),
    scales: countOf(shapeOf("scale_fwd") ?? [0]) + countOf(shapeOf("scale_bwd") ?? [0]),
    history: shapeOf("amax_history_fwd")?.[0] ?? null,
  };
}

/** Names of formats, by their largest numbers forward and backward. */
const FORMATS: Readonly<Record<string, string>> = {
  "448,448": "E4M3",
  "448,57344": "HYBRID",
  "57344,57344": "E5M2",
  "6,6": "E2M1",
};

/** An enum whose value is the pair of largest numbers. */
function formatOf(value: PickleValue | undefined): string | null {
  const [maxima] = isKind(value, "record") ? value.args : [];
  return isKind(maxima, "record") ? (FORMATS[maxima.args.join()] ?? null) : null;
}

function formatOfMaxima(variables: ReadonlyMap<string, PickleValue> | null): string | null {
  const maxima = ["fwd", "bwd"].map((pass) => variables?.get(`fp8_max_${pass}`));
  return FORMATS[maxima.join()] ?? null;
}
