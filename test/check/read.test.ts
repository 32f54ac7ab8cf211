/** `check --read`: every byte is read, and what the format keeps digests of is held to them. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { packed } from "../../formats/packed/format.ts";
import { check } from "../../src/api/check.ts";
import { convert } from "../../src/api/convert.ts";
import { fileStore } from "../../src/io/file.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { flip, partsOf, sealAnew } from "../support/packed.ts";

const work = workFolder();
let counter = 0;
const fresh = (ending = "") => join(work, `${counter++}${ending}`);
const whole = fresh(".isologit");
await convert(golden("tiny"), whole, { verify: "bytes" });
const seals = (await packed.read(await fileStore(whole))).seals!;
const sealOf = (what: string) => seals.find((seal) => seal.what === what)!;
/** The model's remote code is not there: a warning of every check. */
const errorsOf = async (file: string, read = true) =>
  (await check(file, { read })).findings.filter(({ severity }) => severity === "error");
const TABLE = "backbone.embeddings.weight";

it.each(["tiny", "moe", "nemo2-tiny", "nemo1-tiny.nemo", "nemo1-zarr-tp2.nemo", "megatron-tp2"])(
  "%s is whole",
  async (name) => expect(await errorsOf(golden(name))).toEqual([]),
);

describe("a packed file", () => {
  it("is whole, certificate and all", async () => {
    expect(await errorsOf(whole)).toEqual([]);
  });

  it.each([TABLE, "tokenizer.json", "generation_config.json", "the header of model.safetensors"])(
    "has a flipped bit in %s, which is named",
    async (what) => {
      const { offset, size, tensor } = sealOf(what);
      const damaged = flip(whole, fresh(".isologit"), offset + size - 2, 3);
      const { ok, findings } = await check(damaged, { read: true });
      expect(ok).toBe(false);
      const found = findings.filter(({ rule }) => rule === "digest-mismatch");
      expect(found).toMatchObject([{ severity: "error", at: { offset, tensor: tensor ?? null } }]);
      expect(found[0]!.message).toContain(what);
    },
  );

  it("has a byte in its padding", async () => {
    const before = seals.toSorted((a, b) => a.offset - b.offset);
    const i = before.findIndex(
      (seal, i) => i > 0 && before[i - 1]!.offset + before[i - 1]!.size < seal.offset,
    );
    expect(await errorsOf(flip(whole, fresh(".isologit"), before[i]!.offset - 1))).toMatchObject([
      { rule: "padding-invalid", at: { offset: before[i]!.offset - 1 } },
    ]);
  });

  it("has a wrong checksum beside a right SHA-256: seals made anew that lie", async () => {
    const crc = Buffer.alloc(4);
    crc.writeUInt32LE(sealOf(TABLE).crc32!.sums[0]!);
    const damaged = sealAnew(whole, fresh(".isologit"), (bytes) => {
      bytes[Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).indexOf(crc)]! ^= 1;
    });
    expect(await errorsOf(damaged)).toMatchObject([{ rule: "digest-mismatch", at: { tensor: TABLE } }]);
  });

  it("has a certificate that was edited", async () => {
    const { dataEnd } = partsOf(readFileSync(whole));
    const { findings } = await check(flip(whole, fresh(".isologit"), dataEnd + 500), { read: true });
    expect(findings).toContainEqual(
      expect.objectContaining({ rule: "certificate-invalid", severity: "warning" }),
    );
  });

  it("is not read otherwise", async () => {
    const damaged = flip(whole, fresh(".isologit"), sealOf(TABLE).offset);
    expect(await errorsOf(damaged, false)).toEqual([]);
  });

  it("has several faults: all of one file are told", async () => {
    const [first, second] = [sealOf(TABLE).offset, sealOf("lm_head.weight").offset];
    const damaged = flip(flip(whole, fresh(".isologit"), first), fresh(".isologit"), second);
    expect((await errorsOf(damaged)).map(({ at }) => at.tensor)).toEqual([TABLE, "lm_head.weight"]);
  });
});
