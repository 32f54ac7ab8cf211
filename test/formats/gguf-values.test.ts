/** A_log in F32: llama.cpp stores -exp of it, which does not give every value back, so the values are in a key of their own. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { gguf } from "../../formats/gguf/format.ts";
import { convert } from "../../src/api/convert.ts";
import { storedFunction } from "../../src/checkpoint/stored-functions.ts";
import { fileStore } from "../../src/io/file.ts";
import { seeded } from "../support/cast/arena.ts";
import { arraysOf, floatsOf, golden, workFolder } from "../support/goldens.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

const work = workFolder();
const negativeExponential = storedFunction("-exp");
const unverified = { verify: "off", threads: 1 } as const;
const [LOST, KEPT] = [0, 2]; // Mamba layers: one whose values do not follow from what is stored, one whose values do
const nameOf = (layer: number) => `backbone.layers.${layer}.mixer.A_log`;
const keyOf = (layer: number) => `isologit.values.blk.${layer}.ssm_a`;

let values: Float32Array;
let file: string;
beforeAll(async () => {
  const editor = new Editor(await copyOf(golden("tiny")));
  const random = seeded(5);
  const count = editor.get(nameOf(LOST)).shape[0]!;
  values = Float32Array.from({ length: count }, () => 2 * random() - 0.5);
  editor.put(nameOf(LOST), { dtype: "F32", bytes: new Uint8Array(values.slice().buffer) });
  const short = Float32Array.from({ length: count }, (_, i) => i / 8); // numbers of BF16
  editor.put(nameOf(KEPT), { dtype: "F32", bytes: new Uint8Array(short.buffer) });
  file = join(work, "f32.gguf");
  await convert(written(editor.copy, join(work, "f32")), file, unverified);
});

/** The values of a layer after the way back. */
async function valuesBack(path: string, layer: number): Promise<readonly number[]> {
  const back = `${path} back ${layer}`;
  await convert(path, back, { ...unverified, to: "hf" });
  const array = (await arraysOf(join(back, "model.safetensors"))).get(nameOf(layer))!;
  expect(array.dtype).toBe("F32");
  return [...floatsOf(array)];
}

it("the test has values that do not follow from their exponentials", () => {
  const followed = [...values].filter((value) =>
    Object.is(negativeExponential.valueOf(negativeExponential.of(value)), value),
  );
  expect(followed.length).toBeGreaterThan(0);
  expect(followed.length).toBeLessThan(values.length);
});

it("come back bit for bit, also after the conversion of the file into another file", async () => {
  expect(await valuesBack(file, LOST)).toEqual([...values]);
  const again = join(work, "again.gguf");
  await convert(file, again, { ...unverified, dtype: "f32" });
  expect(await valuesBack(again, LOST)).toEqual([...values]);
});

it("only tensors that need them have such a key", async () => {
  const { config } = await gguf.read(await fileStore(file));
  expect(Object.keys(config).filter((key) => key.startsWith("isologit.values."))).toEqual([keyOf(LOST)]);
  expect(config[keyOf(LOST)]).toEqual([...values]);
});

describe("a key that contradicts the tensor is not believed", () => {
  /** The file with a change in the bytes after the name of the key: types, length, numbers. */
  const changed = (name: string, change: (bytes: Buffer) => void): string => {
    const bytes = readFileSync(file);
    const at = bytes.indexOf(keyOf(LOST)) + keyOf(LOST).length;
    change(bytes.subarray(at));
    const path = join(work, `${name}.gguf`);
    writeFileSync(path, bytes);
    return path;
  };
  /** type of the value, type and number of elements */
  const HEAD = 16;

  it("by another number", async () => {
    const path = changed("another", (bytes) => bytes.writeFloatLE(1.5, HEAD));
    const [first, ...others] = await valuesBack(path, LOST);
    expect(first).toBe(negativeExponential.valueOf(negativeExponential.of(values[0]!)));
    expect(others).toEqual([...values].slice(1));
  });

  it("by a number that is none", async () => {
    const path = changed("nan", (bytes) => bytes.writeFloatLE(Number.NaN, HEAD));
    const [first] = await valuesBack(path, LOST);
    expect(first).toBe(negativeExponential.valueOf(negativeExponential.of(values[0]!)));
  });

  it("by another type", async () => {
    const path = changed("type", (bytes) => bytes.writeUInt32LE(4, 4)); // whole numbers in place of F32
    expect(await valuesBack(path, LOST)).toEqual(
      [...values].map((value) => negativeExponential.valueOf(negativeExponential.of(value))),
    );
  });
});
