/** Reads the scores that `importance` wrote, and refuses scores of another model. */
import { readHeader, type StoredTensor } from "../../../formats/codec/safetensors.ts";
import { sameShape } from "../../core/dtype.ts";
import { IsologitError, withLocation } from "../../core/errors.ts";
import { type ByteSource, readRange } from "../../core/io.ts";
import { isJsonObject } from "../../core/json.ts";
import { fileStore } from "../../io/file.ts";
import { SCORES_KEY } from "./file.ts";

/** The largest models have a million scores; a larger tensor is not one of scores. */
const MAX_SCORES = 2 ** 24;

export interface StoredScores extends AsyncDisposable {
  readonly file: string;
  /** content root of the model that was measured */
  readonly root: string;
  has(name: string): boolean;
  /**
   * The scores of one tensor.
   *
   * @throws USAGE where the file has no such scores; SHAPE_MISMATCH, NON_FINITE, DTYPE_UNKNOWN
   */
  read(name: string, count: number): Promise<readonly number[]>;
}

const RECORD = "record them with `isologit importance SRC --out FILE`";

/** @throws NOT_FOUND, USAGE for a file that does not say which model was measured, and codes of a damaged file */
export async function openScores(file: string): Promise<StoredScores> {
  const store = await fileStore(file);
  const [only, other] = await store.list();
  if (only === undefined || other !== undefined)
    throw new IsologitError("USAGE", "it is a folder, expected a file of scores", { file }, { next: RECORD });
  const source = await store.open(only.path);
  try {
    const { tensors, metadata } = await readHeader(source, file);
    const root = rootIn(metadata?.[SCORES_KEY]);
    if (root === null)
      throw new IsologitError(
        "USAGE",
        "it does not say which model its scores are of",
        { file },
        { next: RECORD },
      );
    const byName = new Map(tensors.map((tensor) => [tensor.name, tensor]));
    return {
      file,
      root,
      has: (name) => byName.has(name),
      read: async (name, count) => {
        const tensor = byName.get(name);
        if (tensor !== undefined) return await valuesOf(source, file, tensor, count);
        const message = `the file has no scores ${name}`;
        const next = name.startsWith("layer.") ? `${RECORD}, without \`cheap\`` : RECORD;
        throw new IsologitError("USAGE", message, { file, tensor: name }, { next });
      },
      [Symbol.asyncDispose]: () => source[Symbol.asyncDispose](),
    };
  } catch (error) {
    await source[Symbol.asyncDispose]();
    throw withLocation(error, { file });
  }
}

/** @throws USAGE for scores of another model */
export function refuseOtherModel({ file, root }: StoredScores, source: string): void {
  if (root === source) return;
  const message = `its scores are of the model ${root}, and the source is ${source}`;
  throw new IsologitError("USAGE", message, { file }, { next: RECORD });
}

function rootIn(text: string | undefined): string | null {
  try {
    const value: unknown = JSON.parse(text ?? "null");
    return isJsonObject(value) && typeof value.root === "string" ? value.root : null;
  } catch {
    return null; // the caller says that the file names no model
  }
}

async function valuesOf(
  source: ByteSource,
  file: string,
  { name, dtype, shape, begin, end }: StoredTensor,
  count: number,
): Promise<readonly number[]> {
  const at = { file, tensor: name };
  if (dtype !== "F32" && dtype !== "F64")
    throw new IsologitError("DTYPE_UNKNOWN", `its scores are ${dtype}, expected F32 or F64`, at, {
      next: RECORD,
    });
  if (!sameShape(shape, [count]) || count > MAX_SCORES) {
    const message = `it is [${shape.join(", ")}], expected [${count}]`;
    throw new IsologitError("SHAPE_MISMATCH", message, at, { next: RECORD });
  }
  const bytes = await readRange(source, begin, end - begin);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = Array.from({ length: count }, (_, i) =>
    dtype === "F32" ? view.getFloat32(4 * i, true) : view.getFloat64(8 * i, true),
  );
  const index = values.findIndex((value) => !Number.isFinite(value));
  if (index >= 0)
    throw new IsologitError(
      "NON_FINITE",
      `its score is ${values[index]}`,
      { ...at, index },
      { next: RECORD },
    );
  return values;
}
