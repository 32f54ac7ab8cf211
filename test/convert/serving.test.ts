/** A folder that is written from NeMo or Megatron has what a server of text needs, or says what it lacks. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import { convert } from "../../src/api/convert.ts";
import { diff } from "../../src/api/diff.ts";
import { verify } from "../../src/api/verify.ts";
import type { Event } from "../../src/core/events.ts";
import { golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
let count = 0;

async function folderFrom(source: string, options = {}) {
  const folder = join(work, `${count++}`);
  const warnings: string[] = [];
  const watch = (event: Event) => event.type === "warning" && warnings.push(event.message);
  const { verification } = await convert(source, folder, {
    to: "hf",
    verify: "bytes",
    threads: 1,
    watch,
    ...options,
  });
  const json = (path: string) => JSON.parse(readFileSync(join(folder, path), "utf8"));
  return { folder, json, verification: verification!, lacks: warnings.filter((text) => /lacks/.test(text)) };
}

describe.each(["nemo2-tiny", "megatron-bridge-moe"])("%s", (name) => {
  it("gets the ids of its tokenizer, and can be served", async () => {
    const { folder, json, verification, lacks } = await folderFrom(golden(name));
    const ids = { bos_token_id: 1, eos_token_id: 2 };
    expect(json("config.json")).toMatchObject(ids);
    expect(json("generation_config.json")).toEqual(ids);
    expect(lacks).toEqual([
      expect.stringMatching(/lacks a chat template.*completions, not for chats.*`like`/),
    ]);
    expect(verification.findingDetails.filter(({ severity }) => severity !== "note")).toEqual([]);
    expect(await check(folder)).toMatchObject({ servable: true });
    const { verdict } = await verify(golden(name), folder, { verify: "bytes", strict: true });
    expect(verdict).toBe("same");
    rmSync(join(folder, "tokenizer.json"));
    const { servable, findings } = await check(folder);
    expect(servable).toBe(false);
    expect(findings.map(({ rule }) => rule)).toContain("serving-tokenizer");
  });

  it("is equal to its twin, and to what is written", async () => {
    const { folder } = await folderFrom(golden(name));
    expect(await diff(golden(name), join(golden(name), "hf"))).toMatchObject({ equal: true });
    expect(await diff(golden(name), folder)).toMatchObject({ equal: true });
    expect(await diff(folder, join(golden(name), "hf"), { weights: true })).toMatchObject({ equal: true });
    expect((await diff(folder, join(golden(name), "hf"))).config).toEqual([]);
  });
});

it("other generation settings than the tokenizer's are a difference", async () => {
  const { folder } = await folderFrom(golden("nemo2-tiny"));
  writeFileSync(join(folder, "generation_config.json"), '{"bos_token_id":1,"eos_token_id":3}');
  const { findingDetails } = await verify(golden("nemo2-tiny"), folder, { verify: "bytes" });
  expect(findingDetails).toContainEqual(
    expect.objectContaining({ rule: "file-absent", severity: "warning" }),
  );
});

it("what the source does not know is said", async () => {
  const { folder, lacks } = await folderFrom(golden("nemo1-tiny.nemo"));
  expect(lacks).toEqual([
    expect.stringMatching(/lacks the id of the token that ends a text, a chat template/),
  ]);
  expect((await check(folder)).findings.map(({ rule }) => rule)).toContain("serving-eos");
  const ranks = await folderFrom(golden("megatron-tp2"));
  expect(ranks.lacks).toEqual([expect.stringMatching(/lacks a tokenizer, .*cannot be served/)]);
});

it("`like` brings all of it", async () => {
  const like = golden("tiny");
  const source = join(work, "nemo2");
  await convert(like, source, { to: "nemo2", verify: "off" });
  rmSync(join(source, "isologit.origin"), { recursive: true, force: true });
  const { folder, lacks, json } = await folderFrom(source, { like });
  expect(lacks).toEqual([]);
  expect(json("generation_config.json")).toEqual(
    JSON.parse(readFileSync(join(like, "generation_config.json"), "utf8")),
  );
  expect(readFileSync(join(folder, "chat_template.jinja"))).toEqual(
    readFileSync(join(like, "chat_template.jinja")),
  );
});

it("an unknown key of one config is a difference, a key that no forward pass reads is none", async () => {
  const { folder } = await folderFrom(golden("nemo2-tiny"));
  const twin = join(golden("nemo2-tiny"), "hf");
  const config = readFileSync(join(folder, "config.json"), "utf8");
  writeFileSync(join(folder, "config.json"), config.replace("{", '{"softcap": 30, "chunk_size": 8,'));
  const { config: keys } = await diff(folder, twin);
  expect(keys).toEqual([
    { key: "chunk_size", a: 8, b: 16 },
    { key: "softcap", a: 30, b: null },
  ]);
});

it("a setting that differs is told by every key that spells it", async () => {
  const { folder } = await folderFrom(golden("nemo2-tiny"));
  const config = readFileSync(join(folder, "config.json"), "utf8");
  writeFileSync(
    join(folder, "config.json"),
    config
      .replace('"layer_norm_epsilon": 0.00001', '"layer_norm_epsilon": 0.0001')
      .replace('"rms_norm_eps": 0.00001', '"rms_norm_eps": 0.0001'),
  );
  const { equal, config: keys } = await diff(golden("nemo2-tiny"), folder);
  expect(equal).toBe(false);
  expect(keys).toHaveLength(1);
});
