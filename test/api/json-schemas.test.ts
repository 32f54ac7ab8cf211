/** Schemas of what the commands print: they are as the types are, and the reports of the library follow them. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { loadCommands } from "../../src/cli/commands/index.ts";
import * as library from "../../src/index.ts";
import { CONVERTED, run, VERIFIED } from "../support/fake-library.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { expectSchema } from "../support/json-schemas.ts";
import { schemaTexts } from "./json-schemas.ts";

const commands = await loadCommands();

const folder = new URL("../../docs/json", import.meta.url).pathname;
const [tiny, work] = [golden("tiny"), workFolder()];
const packed = join(work, "packed.isologit");
const fp8 = join(work, "fp8");

it("docs/json holds the schema of every command, written from its type", { timeout: 120_000 }, async () => {
  const texts = schemaTexts();
  const named = new Set([...texts.keys()].map((name) => name.split("-")[0]));
  const others = commands.map(({ name }) => name).filter((name) => !named.has(name));
  expect(others).toEqual(["completion"]); // it prints a script
  for (const [name, text] of texts)
    await expect(text).toMatchFileSnapshot(join(folder, `${name}.schema.json`));
  const files = [...texts.keys()].map((name) => `${name}.schema.json`);
  expect(readdirSync(folder).sort()).toEqual(files.sort());
});

describe("what the commands print follows their schemas", () => {
  it.each([
    [0, `convert ${tiny} ${packed}`],
    [0, `recast ${tiny} ${fp8} --dtype fp8-e4m3 --keep-ends 0`],
    [0, `verify ${tiny} ${packed}`],
    [0, `verify ${packed}`],
    [1, `verify ${tiny} ${golden("sharded")} --verify bytes`],
    [0, `plan ${tiny} ${work}/other --to hf --dtype fp8-e4m3 --measure`],
    [0, `plan ${tiny} ${work}/other --to hf --dtype fp8-e4m3 --recipe auto --bits 12`],
    [0, `check ${fp8} --read --for vllm`],
    [1, `check ${work}`],
    [1, `scan ${golden("..")}`],
    [1, `diff ${tiny} ${golden("tiny-t5")}`],
    [1, `diff ${tiny} ${fp8} --keep-going`],
    [0, `inspect ${fp8} --tensors`],
    [0, `logits ${tiny} --ids 1,2 --out ${work}/logits.safetensors`],
    [0, `importance ${tiny} --ids 1,2 --out ${work}/importance.safetensors`],
    [0, `prune ${tiny} --layers mlp=2 --iterative --ids 1,2,3 --dry-run`],
    [0, `prune ${tiny} --sizes`],
    [0, `prune ${tiny} --sizes --budget memory=1GiB`],
    [0, `generate ${tiny} --ids 1,2 --tokens 2`],
    [0, `doctor`],
    [0, `formats`],
    [4, `inspect ${work}/absent`],
  ])("%i: %s", async (expected, line) => {
    const { status, json, stdout } = await run(`${line} --json`, { over: library });
    expect(status, stdout).toBe(expected);
    expect(json).not.toThrow();
  });

  it("which name every field and its type", () => {
    const judge = (report: object) => () => expectSchema(["verify"], report);
    expect(judge(VERIFIED)).not.toThrow();
    expect(judge({ ...VERIFIED, extra: 1 })).toThrow("additional properties");
    expect(judge({ ...VERIFIED, verdict: "maybe" })).toThrow("data/verdict");
    expect(judge({ ...VERIFIED, limits: { top1: null } })).toThrow("data/limits");
    const verification = { ...VERIFIED, extra: 1 };
    expect(() => expectSchema(["convert"], { ...CONVERTED, verification })).toThrow("additional properties");
    const { roots: _, ...rest } = VERIFIED;
    expect(judge(rest)).toThrow("'roots'");
  });
});
