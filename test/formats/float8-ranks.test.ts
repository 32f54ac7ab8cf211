/** FP8 weights and states of Transformer Engine in files of ranks. */
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { expect, it } from "vitest";
import { namespace } from "../../formats/torch-dist/pickles.ts";
import { convert } from "../../src/api/convert.ts";
import { inspect } from "../../src/api/inspect.ts";
import { plan } from "../../src/api/plan.ts";
import { verify } from "../../src/api/verify.ts";
import { encode, tableOf, widen } from "../../src/core/float.ts";
import { delayedState } from "../support/extra-states.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { rankFiles } from "../support/ranks-cut.ts";
import { inMegatron } from "../support/verify/megatron-copy.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

const work = workFolder();
const FC1 = /^decoder\.layers\.\d+\.mlp\.linear_fc1\.weight@/;
const SCALE = Math.fround(0.0031);

/** `tiny` with up projections whose values are codes times one scale, in F32. */
async function rounded(): Promise<Editor> {
  const editor = new Editor(await copyOf(golden("tiny")));
  for (const [name, { bytes }] of [...editor.copy.tensors]) {
    if (!name.endsWith("up_proj.weight")) continue;
    const values = widen("BF16", bytes).map(
      (x) => tableOf("F8_E4M3")[encode("F8_E4M3", Math.max(-448, Math.min(448, x / SCALE)))]! * SCALE,
    );
    editor.put(name, { dtype: "F32", bytes: new Uint8Array(values.buffer) });
  }
  return editor;
}

/** As two tensor parallel ranks whose files hold the codes. */
async function ranksOf(editor: Editor, name: string, state?: Uint8Array): Promise<string> {
  const { tensors, config } = await inMegatron(editor.copy, {
    ...{ dialect: "megatron-ranks", tp: 2, stages: [0], ep: 1, rows: 512 },
  });
  const stored = [...tensors].map(([key, array]) => {
    if (!FC1.test(key)) return [key, array] as const;
    const codes = widen("F32", array.bytes).map((value) => encode("F8_E4M3", value / SCALE));
    return [key, { ...array, bytes: Uint8Array.from(codes), scale: SCALE }] as const;
  });
  const files = [0, 1].map((tp) => ({
    path: `mp_rank_0${tp}/model_optim_rng.pt`,
    parts: { model: `${tp}.0.0` },
  }));
  const args = namespace({ ...config, tensor_model_parallel_size: 2 });
  const folder = join(work, name);
  for (const [path, bytes] of rankFiles(new Map(stored), files, [["args", args]], state)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), bytes);
  }
  return folder;
}

it("FP8 weights are decoded to the weights of their codes, and a warning tells it", async () => {
  const editor = await rounded();
  const source = await ranksOf(editor, "ranks");
  const twin = written(editor.copy, join(work, "twin"));
  const { verdict } = await verify(twin, source, { verify: "bytes", vocabSize: 512 });
  expect(verdict).toBe("same");
  const out = join(work, "out");
  const options = { to: "hf", dtype: "bf16", vocabSize: 512, verify: "bytes" } as const;
  expect((await convert(source, out, options)).verification!.verdict).toBe("within");
  const { warnings } = await plan(source, out, { to: "hf", vocabSize: 512 });
  expect(warnings.join()).toMatch(/6 weights in FP8 of Transformer Engine: decoded to F32/);
});

it("the recipe of the training is told, and its scales are left out with the reason", async () => {
  const source = await ranksOf(await rounded(), "states", await delayedState());
  expect((await inspect(source, { vocabSize: 512 })).training).toEqual({
    recipes: { "DelayedScaling, HYBRID, history of 4 steps": 2 },
    modules: 2,
    withScales: 2,
  });
  const { warnings, dropped } = await plan(source, join(work, "none"), { to: "hf", vocabSize: 512 });
  expect(warnings.join()).toMatch(/trained in FP8 of Transformer Engine \(DelayedScaling, HYBRID.*left out/);
  expect(dropped.map(({ why }) => why)).toContain("extra state of modules");
});

it("weights of bytes without a scale are refused", async () => {
  const editor = await rounded();
  for (const [name, { bytes }] of [...editor.copy.tensors]) {
    if (!name.endsWith("up_proj.weight")) continue;
    const codes = widen("F32", bytes).map((value) => encode("F8_E4M3", value / SCALE));
    editor.put(name, { dtype: "U8", bytes: Uint8Array.from(codes) });
  }
  const folder = written(editor.copy, join(work, "bytes"));
  const refused = { code: "UNSUPPORTED", message: expect.stringMatching(/^it is U8/) };
  await expect(plan(folder, join(work, "none"), { to: "packed" })).rejects.toMatchObject(refused);
  await expect(inspect(folder)).rejects.toMatchObject(refused);
});

it("a state that calls code stops the plan, by module", async () => {
  const hostile = new Uint8Array(Buffer.from("\x80\x04cos\nsystem\n(S'true'\ntR.", "latin1"));
  const source = await ranksOf(await rounded(), "hostile", hostile);
  await expect(plan(source, join(work, "none"), { to: "hf", vocabSize: 512 })).rejects.toMatchObject({
    code: "PICKLE_REFUSED",
    at: { tensor: "decoder.final_norm" },
  });
});
