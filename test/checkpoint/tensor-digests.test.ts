/** Whoever reads what a packed file has sealed gets what was written, or is told which chunk of what is not. */
import { cpSync, existsSync, readdirSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { packed } from "../../formats/packed/format.ts";
import { convert } from "../../src/api/convert.ts";
import { diff } from "../../src/api/diff.ts";
import { logits } from "../../src/api/logits.ts";
import { verify } from "../../src/api/verify.ts";
import { findCertificate } from "../../src/certificate/location.ts";
import type { SealedSpan } from "../../src/core/checkpoint.ts";
import { fileStore } from "../../src/io/file.ts";
import { errorOf } from "../support/errors.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";
import { flip, partsOf, sealAnew } from "../support/packed.ts";
import { smallModel } from "../support/small.ts";

const work = workFolder();
let counter = 0;
const fresh = (ending = "") => join(work, `${counter++}${ending}`);

/** Its token table and queries have 1.3 MB: more than is compared where a file is read in one go. */
const WIDTHS = { hidden_size: 256, vocab_size: 2560, num_attention_heads: 16, head_dim: 160 };
const plain = await smallModel(join(work, "plain"), "M-*", WIDTHS, 3_000_000);
for (const file of ["generation_config.json", "special_tokens_map.json"])
  cpSync(join(golden("tiny"), file), join(plain, file));
const whole = join(work, "whole.isologit");
await convert(plain, whole, { verify: "off" });
const seals = (await packed.read(await fileStore(whole))).seals!;
const sealOf = (what: string | RegExp): SealedSpan =>
  seals.find((seal) => (typeof what === "string" ? seal.what === what : what.test(seal.what)))!;
const sizes = (name: string) => sealOf(name).size;

const HEAD = "lm_head.weight";
const TABLE = "backbone.embeddings.weight";
const SMALL = "backbone.layers.1.mixer.up_proj.weight";
const QUERY = "backbone.layers.2.mixer.q_proj.weight";

/** Everything that reads a source through, by what it writes. */
const WAYS: Readonly<Record<string, (from: string) => Promise<unknown>>> = {
  "to hf": (from) => convert(from, fresh(), { to: "hf", verify: "bytes" }),
  "to hf, unverified": (from) => convert(from, fresh(), { to: "hf", verify: "off" }),
  "to packed, unverified": (from) => convert(from, fresh(".isologit"), { verify: "off" }),
  "to nemo2": (from) => convert(from, fresh(), { to: "nemo2", verify: "bytes" }),
  "to nemo2, unverified": (from) => convert(from, fresh(), { to: "nemo2", verify: "off" }),
  "to ranks, unverified": (from) => convert(from, fresh(), { to: "megatron", tp: 2, verify: "off" }),
  "to FP8": (from) =>
    convert(from, fresh(), { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", verify: "bytes" }),
  "to FP8, unverified": (from) =>
    convert(from, fresh(), { to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", verify: "off" }),
  "to F32 packed, unverified": (from) => convert(from, fresh(".isologit"), { dtype: "f32", verify: "off" }),
  "verified against its origin": (from) => verify(from, plain, { verify: "bytes" }),
  "its origin verified against it": (from) => verify(plain, from, { verify: "bytes" }),
  "run for its logits": (from) =>
    logits(from, { out: fresh(".safetensors"), ids: [1, 2, 3], memoryBytes: 2 ** 26 }),
  "compared with its origin": (from) => diff(from, plain),
  "its origin compared with it": (from) => diff(plain, from),
};

it("the test has large tensors, small ones and headers", () => {
  for (const name of [TABLE, QUERY]) expect(sizes(name)).toBeGreaterThan(1024 * 1024);
  expect(sizes(SMALL)).toBeLessThan(1024 * 1024);
  expect(seals.filter(({ what }) => what.startsWith("the header of"))).not.toHaveLength(0);
});

it.each([TABLE, QUERY, SMALL])("verified by a certificate, refuses a flipped bit of %s", async (name) => {
  const certified = fresh(".isologit");
  await convert(plain, certified, { verify: "bytes" });
  const { bytes } = await findCertificate(certified, await fileStore(certified));
  const certificate = fresh(".json");
  writeFileSync(certificate, bytes);
  const { offset, size } = sealOf(name);
  const damaged = flip(whole, fresh(".isologit"), offset + size - 3, 5);
  const options = { certificate, verify: "bytes" } as const;
  expect(await errorOf(() => verify(damaged, undefined, options))).toMatchObject({
    ...{ code: "DIGEST_MISMATCH", exit: 3 },
    at: { tensor: name },
  });
  expect((await verify(whole, undefined, options)).verdict).toBe("same");
});

describe.each(Object.entries(WAYS))("%s", (way, read) => {
  // of the token table a forward pass reads a few rows, and what it computes with has CRC-32 alone
  const isRun = way.startsWith("run for");
  it.each(isRun ? [HEAD, QUERY] : [TABLE, QUERY])("refuses a flipped bit of %s", async (name) => {
    const { offset, size } = sealOf(name);
    const error = await errorOf(() => read(flip(whole, fresh(".isologit"), offset + size - 3, 5)));
    expect(error).toMatchObject({ code: "DIGEST_MISMATCH", exit: 3, at: { tensor: name, offset } });
    expect(error.at.file).toMatch(/\.isologit$/);
  });

  if (!isRun)
    it("refuses seals that were made anew and lie about a tensor", async () => {
      const error = await errorOf(() => read(lying(QUERY)));
      expect(error).toMatchObject({ code: "DIGEST_MISMATCH", at: { tensor: QUERY } });
      expect(error.message).toContain("SHA-256");
    });

  if (way === "to hf, unverified" || way.includes("verified against")) {
    it.each([SMALL, "special_tokens_map.json", /^the header of model-00001/])(
      "refuses a flipped bit of %s",
      async (what) => {
        const { offset, size, what: name } = sealOf(what);
        const error = await errorOf(() => read(flip(whole, fresh(".isologit"), offset + size - 2, 1)));
        expect(error).toMatchObject({ code: "DIGEST_MISMATCH", exit: 3, at: { offset } });
        expect(error.message).toContain(name);
      },
    );
  }

  it("reads what is whole", async () => {
    await expect(read(whole)).resolves.toBeDefined();
  });
});

/** The file with seals that give a tensor another SHA-256. */
function lying(name: string): string {
  const right = Buffer.from(sealOf(name).sha256!, "hex");
  return sealAnew(whole, fresh(".isologit"), (bytes) => {
    const at = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).indexOf(right);
    bytes[at]! ^= 1;
  });
}

it("a side file larger than a lane reads at a time is refused as well", async () => {
  const [folder, file] = [fresh(), fresh(".isologit")];
  cpSync(plain, folder, { recursive: true });
  writeFileSync(join(folder, "merges.txt"), new Uint8Array(9_000_000).fill(65));
  await convert(folder, file, { verify: "off" });
  const merges = (await packed.read(await fileStore(file))).seals!.find(({ what }) => what === "merges.txt")!;
  const damaged = flip(file, fresh(".isologit"), merges.offset + 8_000_000, 2);
  const error = await errorOf(() => convert(damaged, fresh(), { to: "hf", verify: "off" }));
  expect(error).toMatchObject({ code: "DIGEST_MISMATCH", at: { offset: merges.offset } });
  expect(error.message).toContain("merges.txt");
});

it("a refused conversion leaves nothing behind", async () => {
  const { offset } = sealOf(TABLE);
  const damaged = flip(whole, fresh(".isologit"), offset);
  const out = fresh();
  await errorOf(() => convert(damaged, out, { to: "hf" }));
  expect(readdirSync(work).filter((name) => name.startsWith(out.slice(work.length + 1)))).toEqual([]);
  expect(existsSync(out)).toBe(false);
});

it("padding is nobody's, and what is written is right", async () => {
  const at = padding();
  const out = fresh();
  const { verification } = await convert(flip(whole, fresh(".isologit"), at), out, {
    to: "hf",
    verify: "bytes",
  });
  expect(verification?.verdict).toBe("same");
  expect(filesOf(out)).toEqual(filesOf(plain));
});

/** A byte before a tensor that belongs to none. */
function padding(): number {
  const inside = (at: number) => seals.some(({ offset, size }) => at >= offset && at < offset + size);
  for (let at = partsOf(new Uint8Array(statSync(whole).size)).frontEnd; ; at++)
    if (!inside(at) && at > 100_000) return at;
}
