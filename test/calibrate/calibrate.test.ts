/** Calibrated scales beside the activations that Transformers and compressed-tensors recorded on the same token ids. */
import { readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { describe, expect, it } from "vitest";
import { calibrateModel } from "../../src/calibrate/calibrate.ts";
import { type LoadedModel, loadModel } from "../../src/checkpoint/load.ts";
import { openCheckpoint } from "../../src/checkpoint/open.ts";
import type { RunOptions } from "../../src/checkpoint/options.ts";
import type { Calibration, CalibrationOptions } from "../../src/quantization/calibration.ts";
import { arraysOf, familyGolden, floatsOf, golden, idsOf, workFolder } from "../support/goldens.ts";
import { copyOf, opened } from "../support/verify/planted.ts";

const folder = workFolder();

interface Recorded {
  readonly inputs: Readonly<Record<string, number>>;
  readonly cached: Readonly<Record<string, number>>;
}
const recorded: Readonly<Record<string, Readonly<Record<string, Recorded>>>> = JSON.parse(
  readFileSync(golden("../calibration/activations.json"), "utf8"),
);

/** The same for families beside Nemotron-H, without experts; keys as the cache has them, after the rotation. */
const families: typeof recorded = JSON.parse(readFileSync(golden("../calibration/families.json"), "utf8"));

/** A file with the ids of a prompt of a golden's folder. */
async function idsFile(address: string, length: string): Promise<string> {
  const arrays = await arraysOf(join(address, "reference.safetensors"));
  const file = join(folder, `${basename(address)}.${length}.json`);
  writeFileSync(file, JSON.stringify(idsOf(arrays.get(`input_ids.${length}`)!)));
  return file;
}

/** Runs a model whose calibration was asked for. */
async function scalesOf(model: LoadedModel, options: RunOptions & CalibrationOptions): Promise<Calibration> {
  return (await calibrateModel(model, { backend: "wasm", threads: 1, ...options }))!;
}

/** Scales by the stored name of a weight. */
async function calibrated(address: string, options: CalibrationOptions & { calibrate: true | string }) {
  const model = await loadModel(await openCheckpoint(address));
  const { inputs, cached, ...rest } = await scalesOf(model, options);
  const named = (scales: ReadonlyMap<string, number>) =>
    new Map([...scales].map(([key, scale]) => [model.roleSources.get(key)![0]!.of!, scale]));
  return { inputs: named(inputs), cached: named(cached), ...rest };
}

/** The largest relative error of `scales` as factors of 448, over the weights in `amax`. */
function worstError(scales: ReadonlyMap<string, number>, amax: Readonly<Record<string, number>>): number {
  const errors = Object.entries(amax).map(([name, most]) => Math.abs((scales.get(name)! * 448) / most - 1));
  return Math.max(...errors.map((error) => (Number.isNaN(error) ? Infinity : error)));
}

describe.each(["tiny", "moe", "latent-moe"])("%s", (name) => {
  it.each(["len17", "len130"])("has the scales of what Transformers multiplies: %s", async (length) => {
    const { inputs, cached } = recorded[name]![length]!;
    const ours = await calibrated(golden(name), { calibrate: await idsFile(golden(name), length) });
    expect(worstError(ours.inputs, inputs)).toBeLessThan(1e-4);
    expect(worstError(ours.cached, cached)).toBeLessThan(1e-4);
    expect([...ours.cached.keys()].sort()).toEqual(Object.keys(cached));
    const beyond = [...ours.inputs.keys()].filter((weight) => inputs[weight] === undefined);
    expect(beyond.every((weight) => weight.includes(".experts."))).toBe(true);
  });
});

describe.each(Object.keys(families))("%s", (name) => {
  it.each(["len17", "len130"])(
    "has the scales of what Transformers multiplies and caches: %s",
    async (length) => {
      const { inputs, cached } = families[name]![length]!;
      const ours = await calibrated(familyGolden(name), {
        calibrate: await idsFile(familyGolden(name), length),
      });
      expect(worstError(ours.inputs, inputs)).toBeLessThan(1e-4);
      expect(worstError(ours.cached, cached)).toBeLessThan(1e-4);
      expect([...ours.cached.keys()].sort()).toEqual(Object.keys(cached));
    },
  );
});

describe("several prompts", () => {
  const prompts = [[5, 9, 77, 301, 12, 8, 14], [200], [400, 3, 3, 17, 90, 250, 31, 6, 111, 42, 7]] as const;
  const fileOf = (which: readonly (readonly number[])[], name: string) => {
    const file = join(folder, name);
    writeFileSync(file, which.map((ids) => JSON.stringify({ input_ids: ids })).join("\n"));
    return file;
  };

  it.each([
    ["tiny", golden("tiny")],
    ["moe", golden("moe")],
    ["llama, whose keys turn with the position in their own prompt", familyGolden("llama")],
  ])("of %s have the largest scale of each alone", async (_, address) => {
    const together = await calibrated(address, { calibrate: fileOf(prompts, "all.jsonl") });
    const alone = [];
    for (const ids of prompts)
      alone.push(await calibrated(address, { calibrate: fileOf([ids], "one.jsonl") }));
    const joined = await calibrated(address, { calibrate: fileOf([prompts.flat()], "joined.jsonl") });
    let unlike = 0;
    for (const kind of ["inputs", "cached"] as const) {
      for (const [weight, scale] of together[kind]) {
        // the largest of a layer stands for an expert that no token reached, so there the largest may be of others
        if (weight.includes(".experts.")) continue;
        expect(scale, weight).toBe(Math.max(...alone.map((one) => one[kind].get(weight)!)));
        if (scale !== joined[kind].get(weight)) unlike++;
      }
    }
    expect(unlike).toBeGreaterThan(5); // one sequence of all tokens has other activations
  });

  it("read the weights once", async () => {
    const model = await loadModel(await openCheckpoint(golden("tiny")));
    const bytes = async (calibrate: string) => {
      let read = 0;
      const watch: RunOptions["watch"] = (event) => {
        if (event.type === "advance") read += event.bytes;
      };
      await scalesOf(model, { calibrate, watch });
      return read;
    };
    expect(await bytes(fileOf(prompts, "all.jsonl"))).toBe(await bytes(fileOf([prompts[0]], "one.jsonl")));
  });
});

it("has the input scales that compressed-tensors calibrated on the same ids", async () => {
  const dialects = new URL("../../fixtures/fp8-dialects/", import.meta.url).pathname;
  const arrays = await arraysOf(join(dialects, "ct-tensor-static", "model.safetensors"));
  const { inputs } = await calibrated(golden("tiny"), { calibrate: await idsFile(golden("tiny"), "len130") });
  const theirs = [...arrays].flatMap(([name, array]) =>
    name.endsWith(".input_scale")
      ? [[name.replace("input_scale", "weight"), 448 * floatsOf(array)[0]!] as const]
      : [],
  );
  expect(theirs).toHaveLength(14);
  expect(worstError(inputs, Object.fromEntries(theirs))).toBeLessThan(1e-4);
});

it("gives an expert without a token the largest scale of its layer, and names it", async () => {
  const { inputs, warnings } = await calibrated(golden("moe"), {
    calibrate: await idsFile(golden("moe"), "len17"),
  });
  const amax = recorded.moe!.len17!.inputs;
  const unused = [...inputs.keys()].filter((weight) => amax[weight] === undefined);
  expect(unused.length).toBeGreaterThan(0);
  for (const weight of unused) {
    const [, before, after] = /^(.*\.experts\.)\d+(\..*)$/.exec(weight)!;
    const others = Object.entries(amax).filter(
      ([other]) => other.startsWith(before!) && other.endsWith(after!),
    );
    expect((inputs.get(weight)! * 448) / Math.max(...others.map(([, most]) => most))).toBeCloseTo(1, 4);
  }
  expect(warnings).toMatchInlineSnapshot(`
    [
      "layer 9: expert 7 got no token of the calibration; its input scale is the largest of the layer",
    ]
  `);
});

it("calibrates a checkpoint whose q, k and v are one tensor of each rank as its twin", async () => {
  const calibrate = join(folder, "ids.txt");
  writeFileSync(calibrate, "5 9 77, 301\n12 8");
  const [ranks, twin] = await Promise.all(
    ["megatron-tp2", "nemo2-tiny/hf"].map(async (name) =>
      scalesOf(await loadModel(await openCheckpoint(golden(name))), { calibrate }),
    ),
  );
  for (const maps of [
    [ranks!.inputs, twin!.inputs],
    [ranks!.cached, twin!.cached],
  ] as const) {
    expect([...maps[0].keys()].sort()).toEqual([...maps[1].keys()].sort());
    for (const [key, scale] of maps[0]) expect(scale / maps[1].get(key)!).toBeCloseTo(1, 5);
  }
});

it("is the same for any number of threads and any memory", async () => {
  const calibrate = await idsFile(golden("moe"), "len17");
  const one = await calibrated(golden("moe"), { calibrate, calibrateRule: "mse" });
  const model = await loadModel(await openCheckpoint(golden("moe")));
  const machine = { threads: 3, memoryBytes: 24 << 20 };
  const other = await scalesOf(model, { ...machine, calibrate, calibrateRule: "mse" });
  expect([...other.inputs.values()]).toEqual([...one.inputs.values()]);
  expect([...other.cached.values()]).toEqual([...one.cached.values()]);
});

it("tells the experts of one stacked tensor apart", async () => {
  const calibrate = await idsFile(golden("moe"), "len130");
  const copy = await copyOf(golden("moe"));
  const stacks = new Map<string, Uint8Array[]>();
  for (const [name, { bytes }] of [...copy.tensors]) {
    const [, before, number, projection] = /^(.*\.experts)\.(\d+)\.(\w+)\.weight$/.exec(name) ?? [];
    if (before === undefined) continue;
    const stack = stacks.get(`${before}.${projection}`) ?? [];
    stack[Number(number)] = bytes;
    stacks.set(`${before}.${projection}`, stack);
  }
  const stacked = new Map([...copy.tensors].filter(([name]) => !/\.experts\.\d/.test(name)));
  for (const [name, parts] of stacks) {
    const first = copy.tensors.get(name.replace(/(\w+)$/, "0.$1.weight"))!;
    stacked.set(name, { ...first, shape: [parts.length, ...first.shape], bytes: Buffer.concat(parts) });
  }
  const [one, other] = await Promise.all(
    [copy, { ...copy, tensors: stacked }].map(async (tensors) =>
      scalesOf(await loadModel(await opened(tensors)), { calibrate }),
    ),
  );
  expect(stacks.size).toBeGreaterThan(0);
  expect(new Map([...other!.inputs].sort())).toEqual(new Map([...one!.inputs].sort()));
});
