/** Whatever strangers write: a value or an IsologitError, no third way, and soon. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "vitest";
import { ggufFacts } from "../../formats/gguf/facts.ts";
import { gguf } from "../../formats/gguf/format.ts";
import { hf } from "../../formats/hf/format.ts";
import { formats } from "../../formats/index.ts";
import { packed } from "../../formats/packed/format.ts";
import { matchModel } from "../../src/checkpoint/load.ts";
import { planConversion } from "../../src/convert/plan.ts";
import { parseJson, stringifyJson } from "../../src/core/json.ts";
import { families } from "../../src/families/index.ts";
import { matchRoles } from "../../src/families/match.ts";
import { Staging } from "../../src/io/staging.ts";
import { parseRecipe } from "../../src/quantization/recipe.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { memoryStore } from "../support/memory-store.ts";
import { fuzz } from "./attempts.ts";
import { spoiltBytes, spoiltJson, VALUES } from "./mutate.ts";

const work = workFolder();
function folder(name: string): Map<string, Uint8Array> {
  const paths = ["config.json", "model.safetensors", "model.safetensors.index.json"];
  const shards = [1, 2, 3].map((i) => `model-0000${i}-of-00003.safetensors`);
  const files = new Map<string, Uint8Array>();
  for (const path of name === "sharded" ? [paths[0]!, paths[2]!, ...shards] : paths.slice(0, 2)) {
    files.set(path, new Uint8Array(readFileSync(join(golden(name), path))));
  }
  return files;
}

/** Opens and plans, as far as headers go. */
async function open(files: ReadonlyMap<string, Uint8Array>, writer = hf.writes!) {
  const source = await hf.read(memoryStore("m", files));
  return await planConversion(matchModel(source, {}), {
    writer,
    options: { dtype: "fp8-e4m3" },
    version: "0",
  });
}

describe("a GGUF with damage in", () => {
  it.each(["gguf/tiny-q4_k_m.gguf", "hostile/gguf/ok-unknown-keys.gguf"])(
    "the header of %s",
    async (name) => {
      const whole = new Uint8Array(readFileSync(new URL(`../../fixtures/${name}`, import.meta.url)));
      const { tensors } = await gguf.read(memoryStore("m", new Map([["m.gguf", whole]])));
      const size = tensors[0]!.pieces[0]!.offset; // the data begin with the first tensor
      await fuzz(600, async (random) => {
        const header = spoiltBytes(whole.subarray(0, size), random);
        const bytes = new Uint8Array(Buffer.concat([header, whole.subarray(size)]));
        const store = memoryStore("m", new Map([["m.gguf", bytes]]));
        const checkpoint = await gguf.read(store, { makeFiles: true });
        ggufFacts(checkpoint);
        matchModel(checkpoint, {});
      });
    },
  );
});

describe("a Hugging Face folder with damage in", () => {
  it("a header", async () => {
    const files = folder("tiny");
    const whole = files.get("model.safetensors")!;
    const size = Number(new DataView(whole.buffer).getBigUint64(0, true));
    await fuzz(400, (random) => {
      const header = spoiltBytes(whole.subarray(8, 8 + size), random);
      const length = new Uint8Array(8);
      new DataView(length.buffer).setBigUint64(0, BigInt(header.byteLength), true);
      const keepsLength = random(4) === 0;
      const bytes = Buffer.concat([
        keepsLength ? whole.subarray(0, 8) : length,
        header,
        whole.subarray(8 + size),
      ]);
      return open(new Map(files).set("model.safetensors", new Uint8Array(bytes)));
    });
  });

  it("the index", async () => {
    const files = folder("sharded");
    const index = files.get("model.safetensors.index.json")!;
    const value = parseJson(index);
    await fuzz(400, (random) => {
      const spoilt =
        random(2) === 0 ? spoiltBytes(index, random) : Buffer.from(stringifyJson(spoiltJson(value, random)));
      return open(new Map(files).set("model.safetensors.index.json", new Uint8Array(spoilt)));
    });
  });

  it.each(["tiny", "tiny-t5", "latent-moe"])("the config of %s", async (name) => {
    const files = folder(name);
    const config = files.get("config.json")!;
    const value = parseJson(config, { nonFinite: true });
    await fuzz(200, (random) => {
      const spoilt =
        random(3) === 0 ? spoiltBytes(config, random) : Buffer.from(stringifyJson(spoiltJson(value, random)));
      return open(new Map(files).set("config.json", new Uint8Array(spoilt)), packed.writes!);
    });
  });

  it("every key of a config with every hostile value", async () => {
    const source = await hf.read(memoryStore("m", folder("latent-moe")));
    const keys = Object.keys(source.config);
    let i = 0;
    await fuzz(keys.length * VALUES.length, () => {
      const [key, value] = [keys[i % keys.length]!, VALUES[Math.floor(i++ / keys.length)]!];
      return matchRoles({ ...source, config: { ...source.config, [key]: value } }, families, new Set());
    });
  });

  it("any file is told apart by every format", async () => {
    const files = folder("tiny");
    await fuzz(100, async (random) => {
      const spoilt = new Map(
        [...files].map(([path, bytes]) => [path, bytes.subarray(0, random(bytes.byteLength))]),
      );
      for (const path of files.keys()) if (random(3) === 0) spoilt.delete(path);
      for (const format of formats) await format.detect(memoryStore("m", spoilt));
      await open(spoilt);
    });
  });
});

it("a recipe", async () => {
  const recipe = "id: mine\nkeep_ends: 1\ncast: [ssm.in, mlp.*]\nkeep:\n  - mlp.down\nkeep_layers: [0, 3]\n";
  const { roles } = families[0]!;
  await fuzz(500, (random) =>
    parseRecipe(Buffer.from(spoiltBytes(Buffer.from(recipe), random)).toString(), "r.yaml", roles),
  );
});

it("a journal", async () => {
  const destination = join(work, "x.isologit");
  const entry = {
    name: "lm_head.weight",
    sha256: "0".repeat(64),
    crc32: [1, 2],
    source: { sha256: "1".repeat(64), amax: 1 },
  };
  const options = { destination, container: "file", planId: "p", totalBytes: 1, overwrite: false } as const;
  const first = await Staging.open({ ...options, resume: false });
  for (const name of ["a", "b", "c", "d"]) first.note({ ...entry, name });
  await first[Symbol.asyncDispose]();
  const path = join(`${destination}.partial`, "journal.ndjson");
  const journal = readFileSync(path);
  await fuzz(60, async (random) => {
    writeFileSync(path, spoiltBytes(journal, random));
    const staging = await Staging.open({ ...options, resume: true });
    await staging[Symbol.asyncDispose]();
    return `${staging.finished.size} finished`;
  });
});
