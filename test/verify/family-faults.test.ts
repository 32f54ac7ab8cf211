/**
 * Faults that conversions of dense and MoE models make, each planted in a copy of a golden. Each must be `different` at the
 * right layer, at a key of the config, or refused with its code. All goldens, and recasts with the same faults: test/long.
 */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { errorOf } from "../support/errors.ts";
import { familyGolden } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import {
  copyOfGolden,
  FAMILY_GOLDENS,
  faultsIn,
  SETTING_FAULTS,
  USUAL_GOLDENS,
} from "../support/verify/family-faults.ts";
import { type Copy, Editor, opened } from "../support/verify/planted.ts";
import { expectClean, expectNamed, keepScore } from "../support/verify/score.ts";
import { verifyCheckpoints } from "../support/verify/verify-checkpoints.ts";

const QUICK: VerifyOptions = { threads: 1, memoryBytes: 64 * 1024 * 1024 };
const score = keepScore("faults in families beside Nemotron-H");

const verified = async (source: Copy, { copy }: Editor, tokens = 17) =>
  verifyCheckpoints(await opened(source), await opened(copy), { ...QUICK, tokens });

describe.each(USUAL_GOLDENS)("%s", async (name) => {
  const source = await copyOfGolden(name);

  it.each(Object.entries(faultsIn(name)))("%s", async (_, { layer, plant }) => {
    const editor = new Editor(source);
    plant(editor);
    expectNamed(score, await verified(source, editor), layer);
  });
});

describe.each(FAMILY_GOLDENS)("%s", async (name) => {
  const source = await copyOfGolden(name);

  it("honest copies are the same model", async () => {
    expectClean(score, await verified(source, new Editor(source)), "same");
    const respelt = new Editor(source);
    respelt.copy.files.set("config.json", readFileSync(`${familyGolden("t5-configs")}/${name}.json`));
    expectClean(score, await verified(source, respelt), "same");
    const older = new Editor(source);
    older.add("model.layers.0.self_attn.rotary_emb.inv_freq", "F32", [8], new Uint8Array(32));
    expectClean(score, await verified(source, older), "same");
  });
});

it.each(SETTING_FAULTS)("$name with $keys is different, by $setting", async ({ name, keys, setting, at }) => {
  const source = await copyOfGolden(name);
  const editor = new Editor(source);
  editor.config(keys);
  score.planted++;
  const report = await verified(source, editor, 40); // more than a window
  const { settings } = metricsWith(report, "cover", "settings");
  expect(report.verdict).toBe("different");
  expect(settings).toContainEqual(expect.stringMatching(`^${setting} is `));
  expect(report.findings.join()).toContain(Object.keys(keys)[0]);
  if (at === null) expect(report.firstDivergence).toBeNull();
  else expect(report.firstDivergence).toMatchObject(at);
  score.caught++;
});

describe("a tied head", async () => {
  const source = await copyOfGolden("qwen2");
  const withHead = () => {
    const editor = new Editor(source);
    const table = editor.get("model.embed_tokens.weight");
    editor.add("lm_head.weight", table.dtype, table.shape, table.bytes);
    return editor;
  };

  it("that is stored as a copy is the same model", async () => {
    expectClean(score, await verified(source, withHead()), "same");
  });

  it("is not the token table, if that is missing", async () => {
    const editor = withHead();
    editor.drop("model.embed_tokens.weight");
    score.planted++;
    const error = await errorOf(() => verified(source, editor));
    expect(error).toMatchObject({ code: "TENSOR_MISSING", at: { tensor: "model.embed_tokens.weight" } });
    score.caught++;
  });

  it("that was altered is refused", async () => {
    const editor = withHead();
    editor.flip("lm_head.weight", 99);
    score.planted++;
    const error = await errorOf(() => verified(source, editor));
    expect(error).toMatchObject({ code: "REPLICA_DIFFERS", at: { tensor: "lm_head.weight" } });
    score.caught++;
  });
});
