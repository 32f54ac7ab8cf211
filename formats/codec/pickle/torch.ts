/** Storages and tensors as torch pickles them: a persistent id for the bytes, a function for the view. */
import { bytesOf, countOf, type DType, widthOf } from "../../../src/core/dtype.ts";
import { type ErrorLocation, IsologitError } from "../../../src/core/errors.ts";
import {
  expectKind,
  expectShape,
  expectSize,
  expectText,
  isKind,
  type PickleOpaque,
  type PickleStorage,
  type PickleValue,
  quoteText,
  unexpectedValueError,
} from "./value.ts";

/** null: a type of torch that safetensors does not have; its tensors stay opaque. */
export const DTYPE_GLOBALS: ReadonlyMap<string, DType | null> = new Map<string, DType | null>(
  Object.entries({
    bfloat16: "BF16",
    float16: "F16",
    half: "F16",
    float32: "F32",
    float: "F32",
    float64: "F64",
    double: "F64",
    bool: "BOOL",
    uint8: "U8",
    int8: "I8",
    int16: "I16",
    short: "I16",
    int32: "I32",
    int: "I32",
    int64: "I64",
    long: "I64",
    uint16: "U16",
    uint32: "U32",
    uint64: "U64",
    float8_e4m3fn: "F8_E4M3",
    float8_e5m2: "F8_E5M2",
    float8_e4m3fnuz: "F8_E4M3FNUZ",
    float8_e5m2fnuz: "F8_E5M2FNUZ",
    float8_e8m0fnu: "F8_E8M0",
    complex64: "C64",
    complex32: null,
    complex128: null,
    qint8: null,
    quint8: null,
    qint32: null,
  } as const).map(([name, dtype]) => [`torch.${name}`, dtype]),
);

/** "untyped": the type is in the tensor. */
export const STORAGE_GLOBALS: ReadonlyMap<string, DType | "untyped" | null> = new Map<
  string,
  DType | "untyped" | null
>([
  ...Object.entries({
    BFloat16: "BF16",
    Half: "F16",
    Float: "F32",
    Double: "F64",
    Byte: "U8",
    Char: "I8",
    Short: "I16",
    Int: "I32",
    Long: "I64",
    Bool: "BOOL",
    ComplexFloat: "C64",
    ComplexDouble: null,
    QInt8: null,
    QUInt8: null,
    QInt32: null,
  } as const).map(([name, dtype]) => [`torch.${name}Storage`, dtype] as const),
  ["torch.storage.UntypedStorage", "untyped"],
]);

/** Keys are numbers as text; any other text could be a path. */
const STORAGE_KEY = /^\d{1,20}$/;

/** The storage of a persistent id: ("storage", class, key, device, number of elements). @throws PICKLE_INVALID */
export function storageOf(id: PickleValue, at: ErrorLocation): PickleValue {
  const { items } = expectKind(id, "tuple", "a persistent id", at);
  const [tag, type, key, , count] = items;
  if (tag !== "storage") {
    throw new IsologitError("PICKLE_INVALID", 'a persistent id is not a "storage"', at);
  }
  const text = expectText(key, "a storage's key", at);
  if (!STORAGE_KEY.test(text)) {
    throw new IsologitError("PATH_UNSAFE", `the storage key ${quoteText(text)} is not a number`, at);
  }
  if (isKind(type, "opaque")) return type;
  const { name } = expectKind(type, "global", "a storage's class", at);
  const dtype = STORAGE_GLOBALS.get(name);
  if (dtype === undefined)
    throw unexpectedValueError(type, "a storage class of torch", "a storage's class", at);
  if (dtype === null) return unreadable(name, at);
  return {
    kind: "storage",
    key: text,
    dtype: dtype === "untyped" ? null : dtype,
    count: expectSize(count, `elements of storage ${text}`, at),
  };
}

/** (storage, offset, shape, strides, …). @throws PICKLE_INVALID, SIZE_UNSAFE, SPAN_INVALID */
export function rebuildTensor(args: readonly PickleValue[], at: ErrorLocation): PickleValue {
  const [storage] = args;
  if (isKind(storage, "opaque")) return storage;
  const held = expectKind(storage, "storage", "the storage of a tensor", at);
  if (held.dtype === null)
    throw unexpectedValueError(storage, "a typed storage", "the storage of a tensor", at);
  return viewOf(held, held.dtype, args, at);
}

/** (storage, offset, shape, strides, requires_grad, hooks, dtype, …) with an untyped storage. @throws like `rebuildTensor` */
export function rebuildTyped(args: readonly PickleValue[], at: ErrorLocation): PickleValue {
  const [storage, , , , , , type] = args;
  if (isKind(storage, "opaque")) return storage;
  const held = expectKind(storage, "storage", "the storage of a tensor", at);
  if (isKind(type, "opaque")) return type;
  const { name } = expectKind(type, "global", "a tensor's dtype", at);
  const dtype = DTYPE_GLOBALS.get(name);
  if (dtype === undefined) throw unexpectedValueError(type, "a dtype of torch", "a tensor's dtype", at);
  return dtype === null ? unreadable(name, at) : viewOf(held, dtype, args, at);
}

function viewOf(
  storage: PickleStorage,
  dtype: DType,
  args: readonly PickleValue[],
  at: ErrorLocation,
): PickleValue {
  const offset = expectSize(args[1], "a tensor's offset in its storage", at);
  const shape = expectShape(args[2], "a tensor's shape", at);
  const strides = expectShape(args[3], "a tensor's strides", at);
  if (shape.length !== strides.length) {
    const message = `a tensor of ${shape.length} dimensions has ${strides.length} strides`;
    throw new IsologitError("PICKLE_INVALID", message, at);
  }
  const count = countOf(shape, at);
  const capacity = Math.floor(storageBytes(storage, at) / widthOf(dtype));
  const last = count === 0 ? -1 : offset + shape.reduce((sum, n, axis) => sum + (n - 1) * strides[axis]!, 0);
  if (last >= capacity || offset > capacity || count > capacity) {
    // With strides of 0 or overlapping rows, a tensor could have any number of elements.
    const message = `a tensor [${shape.join(", ")}] at element ${offset}, strides [${strides.join(", ")}], does not lie in storage ${storage.key} of ${capacity} elements`;
    throw new IsologitError("SPAN_INVALID", message, at);
  }
  return { kind: "tensor", storage, dtype, shape, strides, offset };
}

/** Bytes of a whole storage. @throws SIZE_UNSAFE */
export function storageBytes({ dtype, count }: PickleStorage, at: ErrorLocation): number {
  return bytesOf(dtype ?? "U8", [count], at);
}

function unreadable(name: string, { offset = 0 }: ErrorLocation): PickleOpaque {
  return { kind: "opaque", name, offset };
}
