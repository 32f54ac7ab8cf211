/** States and weights of Transformer Engine that torch pickled (`fixtures/extra-states`), and damaged or hostile ones. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { isKind } from "../../../formats/codec/pickle/value.ts";
import { writePickle } from "../../../formats/codec/pickle/write.ts";
import { readTorch, tensorOf } from "../../../formats/codec/torch-zip/read.ts";
import { readExtraState, readPayload } from "../../../formats/codec/transformer-engine/extra-state.ts";
import {
  decodedWeight,
  float8Store,
  float8WeightOf,
} from "../../../formats/codec/transformer-engine/float8-tensor.ts";
import { engineMeaning } from "../../../formats/codec/transformer-engine/names.ts";
import { pickledTensor } from "../../../formats/torch-dist/pickles.ts";
import { inspect } from "../../../src/api/inspect.ts";
import { scan } from "../../../src/api/scan.ts";
import { widen } from "../../../src/core/float.ts";
import { extentsOf, Sources } from "../../../src/core/read.ts";
import { delayedState, extraState } from "../../support/extra-states.ts";
import { workFolder } from "../../support/goldens.ts";
import { memorySource, memoryStore } from "../../support/memory-store.ts";
import { archive } from "../../support/ranks-cut.ts";

const stored = (name: string) => new Uint8Array(readFileSync(extraState(name)));

async function stateIn(bytes: Uint8Array) {
  const source = memorySource("state.pt", bytes);
  const payload = await readPayload(source, "state.pt", { offset: 0, size: bytes.byteLength });
  return payload === null ? null : await readExtraState(source, payload, { file: "state.pt", tensor: "fc1" });
}

const readPickled = (payload: Uint8Array) =>
  readExtraState(memorySource("state.pt", payload), payload, { file: "state.pt", tensor: "fc1" });

describe("a state", () => {
  const delayed = { recipe: "DelayedScaling", format: "HYBRID", scales: 5, history: 4 };
  it.each([
    ["te2-delayed", delayed],
    ["te1-delayed", delayed],
    ["te2-current", { recipe: "Float8CurrentScaling", format: "HYBRID", scales: 0, history: null }],
    ["te2-none", null],
    ["te1-none", null],
    ["local", null],
  ])("%s", async (name, state) => {
    expect(await stateIn(stored(`${name}.pt`))).toEqual(state);
  });

  it("in a distributed checkpoint is told by inspect", async () => {
    const { training } = await inspect(extraState("dist"));
    expect(training).toEqual({
      recipes: { "DelayedScaling, HYBRID, history of 4 steps": 2, "Float8CurrentScaling, HYBRID": 1 },
      modules: 6,
      withScales: 2,
    });
  });
});

describe("a hostile state", () => {
  const refused = (code: string) =>
    expect.objectContaining({ code, at: { file: "state.pt", tensor: "fc1" } });
  const python = (text: string) => new Uint8Array(Buffer.from(text, "latin1"));

  it("is cut at any byte", async () => {
    const whole = await delayedState();
    for (let size = 1; size < whole.byteLength; size += 7)
      await expect(readPickled(whole.slice(0, size)), `${size}`).rejects.toMatchObject({ exit: 3 });
  });

  it.each([
    ["calls os.system", "cos\nsystem\n(S'true'\ntR."],
    ["hides a call among its variables", "(dS'x'\ncos\nsystem\n(S'true'\ntRs."],
    ["finds a function of another module", "c__builtin__\ngetattr\n(cposix\nsystem\nS'x'\ntR."],
    ["loads a storage whose pickle calls", "ctorch.storage\n_load_from_bytes\n(C\x0ecos\nsystem\n)R.tR."],
  ])("%s", async (_, pickle) => {
    await expect(readPickled(python(`\x80\x04${pickle}`))).rejects.toEqual(refused("PICKLE_REFUSED"));
  });

  it("has a storage that is shorter than it says", async () => {
    const whole = Buffer.from(await delayedState());
    const at = whole.indexOf("cpuq\x03K\x03", 0, "latin1");
    whole[at + 6] = 200;
    await expect(readPickled(new Uint8Array(whole))).rejects.toEqual(refused("TRUNCATED"));
  });

  it("has more storages than a state needs", async () => {
    const whole = Buffer.from(await delayedState());
    const start = whole.indexOf(Buffer.from("8002", "hex"), 300);
    const storage = whole.subarray(start, whole.indexOf("\x94\x85", start, "latin1")).toString("latin1");
    const load = `ctorch.storage\n_load_from_bytes\n(C${String.fromCharCode(storage.length)}${storage}tR0`;
    const fine = python(`\x80\x04${load.repeat(64)}N.`);
    expect(await readPickled(fine)).toBeNull();
    await expect(readPickled(python(`\x80\x04${load.repeat(65)}N.`))).rejects.toEqual(
      refused("LIMIT_EXCEEDED"),
    );
  });

  it("has more bytes than are read", async () => {
    const source = { ...memorySource("state.pt", new Uint8Array()), size: 2 ** 40 };
    const payload = { offset: 0, size: 2 ** 30 };
    await expect(readExtraState(source, payload, { file: "state.pt", tensor: "fc1" })).rejects.toEqual(
      refused("LIMIT_EXCEEDED"),
    );
  });

  it("is no pickle", async () => {
    await expect(readPickled(Uint8Array.of(1, 2, 3))).rejects.toMatchObject({ exit: 3 });
  });
});

describe("scan", async () => {
  const work = workFolder();
  const found = async (bytes: Uint8Array) => {
    const file = join(work, "state.pt");
    writeFileSync(file, bytes);
    return (await scan(file)).findings.map(({ rule, message }) => `${rule} ${message}`);
  };
  const bytesValue = (state: Uint8Array) =>
    archive(writePickle({ list: [pickledTensor("U8", [state.byteLength], 0)] }), [state]);
  const streamValue = (state: Uint8Array) => {
    const latin1 = Buffer.from(state).toString("latin1");
    const bytes = { reduce: { global: "_codecs.encode" }, args: [latin1, "latin1"] };
    return archive(writePickle({ list: [{ reduce: { global: "_io.BytesIO" }, args: [bytes] }] }), []);
  };
  const system = new Uint8Array(Buffer.from("\x80\x04cos\nsystem\n(S'true'\ntR.", "latin1"));
  const nested = new Uint8Array(
    Buffer.from("\x80\x04ctorch.storage\n_load_from_bytes\n(C\x0ecos\nsystem\n)R.tR.", "latin1"),
  );
  const inArchive = archive(writePickle({ reduce: { global: "os.system" }, args: ["true"] }), []);

  it.each([
    ["a byte tensor", bytesValue(system)],
    ["a storage in a byte tensor", bytesValue(nested)],
    ["a byte stream", streamValue(system)],
    ["an archive in a byte stream", streamValue(inArchive)],
  ])("finds the code that loading %s would run", async (_, bytes) => {
    expect((await found(bytes))[0]).toMatch(/^pickle-danger .*os\.system/);
  });

  it("finds nothing in genuine states, and in bytes that only begin like a pickle", async () => {
    for (const name of ["te2-delayed", "te2-current", "te2-none", "te1-delayed", "te1-none", "local"])
      expect(await found(stored(`${name}.pt`)), name).toEqual([]);
    expect(await found(bytesValue(Uint8Array.of(0x80, 4, 99, 111, 115, 10, 1, 2, 255, 10)))).toEqual([]);
    expect((await scan(extraState("dist"))).findings).toEqual([]);
  });
});

describe("an FP8 weight", async () => {
  const bytes = stored("float8-tensor.pt");
  const saved = await readTorch(memorySource("model.pt", bytes), {
    file: "model.pt",
    moreMeanings: engineMeaning,
  });
  if (!isKind(saved.value, "dict")) throw new Error("it holds a dict");
  const held = new Map(saved.value.entries);
  const weight = float8WeightOf(saved, "weight", held.get("weight")!, { file: "model.pt" })!;

  const valuesOf = async (changed: Uint8Array, name: "weight" | "decoded") => {
    const store = memoryStore("memory", new Map([["model.pt", changed]]));
    await using sources = new Sources(float8Store(store, [{ file: "model.pt", weight }]));
    const plain = held.get("decoded")!;
    if (!isKind(plain, "tensor")) throw new Error("it is a tensor");
    const tensor = name === "weight" ? decodedWeight("model.pt", weight) : tensorOf(saved, name, plain);
    const target = new Uint8Array(4 * 128);
    await sources.read(extentsOf(tensor, 0, 128), target);
    return [...widen("F32", target)];
  };

  it("has the values that torch computes", async () => {
    expect(await valuesOf(bytes, "weight")).toEqual(await valuesOf(bytes, "decoded"));
  });

  it("with a code that is NaN, or without a scale, is refused", async () => {
    const changed = (offset: number, ...values: number[]) => {
      const copy = bytes.slice();
      copy.set(values, offset);
      return valuesOf(copy, "weight");
    };
    const [codes] = weight.codes.pieces;
    await expect(changed(codes!.offset + 9, 0x7f)).rejects.toMatchObject({
      code: "NON_FINITE",
      at: { tensor: "weight", index: 9 },
    });
    await expect(changed(weight.scale.offset, 0, 0, 0, 0)).rejects.toMatchObject({ code: "SCALE_INVALID" });
  });

  it("of several scales is refused by name", async () => {
    const value = held.get("weight")!;
    if (!isKind(value, "record")) throw new Error("it is a record");
    const other = { ...value, name: value.name.replace("Float8Tensor", "MXFP8Tensor") };
    expect(() => float8WeightOf(saved, "w", other, { file: "model.pt", tensor: "w" })).toThrow(
      expect.objectContaining({ code: "UNSUPPORTED", message: expect.stringContaining("MXFP8Tensor") }),
    );
  });

  it("is code for other software, which scan tells", async () => {
    const { findings } = await scan(extraState("float8-tensor.pt"));
    expect(findings.map(({ message }) => message).join()).toContain("getattr");
  });
});
