/**
 * The names that a pickle may use, and their meanings here. Nothing is imported or called: a name is looked up in these
 * tables, and a name that is not in them is opaque. The tables were collected from files of torch, Megatron, NeMo and numpy.
 */
import type { ErrorLocation } from "../../../src/core/errors.ts";
import { recordOf } from "./object.ts";
import { DTYPE_GLOBALS, rebuildTensor, rebuildTyped, STORAGE_GLOBALS } from "./torch.ts";
import { expectKind, isKind, type PickleEntry, type PickleValue, unexpectedValueError } from "./value.ts";

export type Meaning =
  /** a constant: it makes nothing */
  | { readonly use: "value" }
  /** its call becomes a record of its arguments */
  | { readonly use: "class" }
  | { readonly use: "function"; make(args: readonly PickleValue[], at: ErrorLocation): PickleValue };

const CLASSES: Readonly<Record<string, readonly string[]>> = {
  argparse: ["Namespace"],
  types: ["SimpleNamespace"],
  builtins: ["complex", "slice", "range", "object"],
  _io: ["BytesIO"],
  uuid: ["UUID", "SafeUUID"],
  datetime: ["datetime", "date", "timedelta", "timezone"],
  decimal: ["Decimal"],
  signal: ["Signals"],
  pathlib: ["Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"],
  "pathlib._local": ["Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath"],
  collections: ["defaultdict", "deque", "Counter"],
  numpy: ["ndarray", "dtype"],
  // numpy 2 renamed the module of both
  "numpy.core.multiarray": ["_reconstruct", "scalar"],
  "numpy._core.multiarray": ["_reconstruct", "scalar"],
  torch: ["device"],
  "torch.serialization": ["_get_layout"],
  "torch.distributed.checkpoint.metadata": [
    ...["Metadata", "MetadataIndex", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata"],
    ...["TensorProperties", "StorageMeta", "_MEM_FORMAT_ENCODING"],
  ],
  "torch.distributed.checkpoint.filesystem": ["_StorageInfo"],
  "torch.distributed.checkpoint.planner": [
    ...["SavePlan", "WriteItem", "WriteItemType", "TensorWriteData", "BytesIOWriteData"],
  ],
  "megatron.core.dist_checkpointing.strategies.torch": ["MCoreSavePlan", "MCoreMetadata"],
  "omegaconf.dictconfig": ["DictConfig"],
  "omegaconf.listconfig": ["ListConfig"],
  "omegaconf.base": ["ContainerMetadata", "Metadata"],
  "omegaconf.nodes": ["AnyNode", "StringNode", "IntegerNode", "FloatNode", "BooleanNode"],
  "pytorch_lightning.utilities.parsing": ["AttributeDict"],
  "lightning.pytorch.utilities.parsing": ["AttributeDict"],
  "lightning.fabric.utilities.data": ["AttributeDict"],
};

/** Modules that contain only enums, whose members differ between versions. */
const ENUM_MODULES = ["megatron.core.enums", "megatron.core.transformer.enums"];

const FUNCTIONS: Readonly<Record<string, (args: readonly PickleValue[], at: ErrorLocation) => PickleValue>> =
  {
    "collections.OrderedDict": dictOf,
    "builtins.dict": dictOf,
    "builtins.list": (args, at) => ({ kind: "list", items: itemsOf(args, "list", at) }),
    "builtins.tuple": (args, at) => ({ kind: "tuple", items: itemsOf(args, "tuple", at) }),
    "builtins.set": (args, at) => ({ kind: "set", items: itemsOf(args, "set", at) }),
    "builtins.frozenset": (args, at) => ({ kind: "set", items: itemsOf(args, "frozenset", at) }),
    "builtins.bytes": bytesOf,
    "builtins.bytearray": bytesOf,
    "_codecs.encode": bytesOf,
    "torch.Size": (args, at) => ({ kind: "tuple", items: itemsOf(args, "torch.Size", at) }),
    "torch._utils._rebuild_tensor": rebuildTensor,
    "torch._utils._rebuild_tensor_v2": rebuildTensor,
    "torch._utils._rebuild_tensor_v3": rebuildTyped,
    // a Parameter is its tensor; its other attributes are for training
    "torch._utils._rebuild_parameter": ([data]) => data ?? null,
    "torch._utils._rebuild_parameter_with_state": ([data]) => data ?? null,
    "copyreg._reconstructor": reconstructObject,
  };

const MEANINGS: ReadonlyMap<string, Meaning> = new Map<string, Meaning>([
  ...[...DTYPE_GLOBALS.keys(), ...STORAGE_GLOBALS.keys(), "torch.strided"].map(
    (name) => [name, { use: "value" }] as const,
  ),
  ...Object.entries(CLASSES).flatMap(([module, names]) =>
    names.map((name) => [`${module}.${name}`, { use: "class" }] as const),
  ),
  ...Object.entries(FUNCTIONS).map(([name, make]) => [name, { use: "function", make }] as const),
]);

/** Names of two modules in Python 2, which protocols 0 to 2 still use. */
const RENAMED: Readonly<Record<string, string>> = { __builtin__: "builtins", copy_reg: "copyreg" };

/** The dotted name. Where the module ends does not matter: Python would find the same object. */
export function globalName(module: string, name: string): string {
  return `${Object.hasOwn(RENAMED, module) ? RENAMED[module] : module}.${name}`;
}

/** The meaning of a name; undefined if it is not listed. */
export function meaningOf(name: string): Meaning | undefined {
  const isEnum = ENUM_MODULES.some(
    (module) => name.startsWith(module) && /^\.\w+$/.test(name.slice(module.length)),
  );
  return isEnum ? { use: "class" } : MEANINGS.get(name);
}

/** A dict from no argument, from a dict, or from a list of pairs. */
function dictOf(args: readonly PickleValue[], at: ErrorLocation): PickleValue {
  const [given] = args;
  if (isKind(given, "dict")) return { kind: "dict", entries: [...given.entries] };
  const entries = itemsOf(args, "dict", at).map((pair): PickleEntry => {
    const [key, value, ...more] = itemsOf([pair], "pair of a dict", at);
    if (key !== undefined && value !== undefined && more.length === 0) return [key, value];
    throw unexpectedValueError(pair, "a pair", "an item of a dict", at);
  });
  return { kind: "dict", entries };
}

/** Items from no argument, or from one container. */
function itemsOf(args: readonly PickleValue[], what: string, at: ErrorLocation): readonly PickleValue[] {
  const [given] = args;
  if (given === undefined) return [];
  if (isKind(given, "list") || isKind(given, "tuple") || isKind(given, "set")) return [...given.items];
  throw unexpectedValueError(given, "a list or a tuple", `the argument of ${what}`, at);
}

/** Protocol 2 has no bytes: it stores them as a text to be encoded as Latin-1. */
function bytesOf(args: readonly PickleValue[], at: ErrorLocation): PickleValue {
  const [given, encoding] = args;
  if (given === undefined) return new Uint8Array();
  if (given instanceof Uint8Array) return given;
  const what = "text of bytes";
  if (typeof given !== "string" || !/^latin-?1$/.test(String(encoding)) || /[^\0-\xff]/.test(given)) {
    throw unexpectedValueError(given, "Latin-1", what, at);
  }
  return new Uint8Array(Buffer.from(given, "latin1"));
}

/** How protocols 0 and 1 make an object: from its class, `object` and None. */
function reconstructObject([type]: readonly PickleValue[], at: ErrorLocation): PickleValue {
  if (isKind(type, "opaque")) return type;
  const { name } = expectKind(type, "global", "a class", at);
  if (meaningOf(name)?.use === "class") return recordOf(name, []);
  throw unexpectedValueError(type, "a class", "what is made", at);
}
