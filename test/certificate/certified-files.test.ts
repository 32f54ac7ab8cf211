/** A certificate speaks for the format and the files that it was issued for. */
import { cpSync, mkdirSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import { encodeCertificate } from "../../src/certificate/certificate.ts";
import { readMatchingCertificate } from "../../src/certificate/location.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const BYTES = { threads: 1, memoryBytes: 64 * 1024 * 1024, verify: "bytes" } as const;
const made = { hf: `${work}/hf`, packed: `${work}/tiny.isologit`, nemo2: `${work}/nemo2` };
for (const [to, path] of Object.entries(made)) await convert(golden("tiny"), path, { to, ...BYTES });

const again = (address: string, options: VerifyOptions = {}) =>
  verify(address, undefined, { ...BYTES, ...options });

let copies = 0;
/** A copy of a certified folder, with files written into it; null takes one away. */
function edited(folder: string, files: Readonly<Record<string, string | null>>): string {
  const copy = `${work}/copy-${copies++}`;
  cpSync(folder, copy, { recursive: true });
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(copy, path)), { recursive: true });
    if (text === null) unlinkSync(join(copy, path));
    else writeFileSync(join(copy, path), text);
  }
  return copy;
}

describe("a file that was added", () => {
  it.each([
    "chat_template.json",
    "tokenizer.model",
    "added_tokens.json",
    "adapter_config.json",
    "adapter_model.safetensors",
    "layers/modeling.py",
    "model.safetensors.index.json",
    "pytorch_model.bin",
  ])("%s, which engines load, is different", async (path) => {
    expect(await again(edited(made.hf, { [path]: "{}" }))).toMatchObject({
      verdict: "different",
      rungs: [
        { rung: "cover", verdict: "different" },
        { rung: "bytes", verdict: "same" },
      ],
      findingDetails: [{ rule: "file-added", severity: "error", at: { file: path } }],
    });
  });

  it.each([
    ["LICENSE", "note"],
    [".gitattributes", "note"],
    ["logo.png", "note"],
    ["training.yaml", "warning"],
  ])("%s is named, not judged", async (path, severity) => {
    expect(await again(edited(made.hf, { [path]: "{}" }))).toMatchObject({
      verdict: "same",
      findingDetails: [{ rule: "file-added", severity, at: { file: path } }],
    });
  });

  it("is judged in what was kept for the way home as it will be there", async () => {
    const path = "isologit.origin/adapter_config.json";
    expect(await again(edited(made.nemo2, { [path]: "{}" }))).toMatchObject({
      verdict: "different",
      findingDetails: [{ rule: "file-added", severity: "error", at: { file: path } }],
    });
  });
});

describe("a certificate of another format", () => {
  const ofPacked = `${work}/packed.json`;
  const ofHf = join(made.hf, CERTIFICATE_FILE);

  it("is refused where it was found in its place, also with its signer's key", async () => {
    const { destination } = (await certificateIn(made.packed))!;
    writeFileSync(ofPacked, encodeCertificate((await certificateIn(made.packed))!));
    expect(destination.format).toBe("packed");
    const folder = edited(made.hf, { [CERTIFICATE_FILE]: readFileSync(ofPacked, "utf8") });
    const error: IsologitError = await again(folder).catch((thrown) => thrown);
    expect(error).toBeInstanceOf(IsologitError);
    expect([error.code, error.message, error.at.file]).toEqual([
      "CERTIFICATE_INVALID",
      "it was issued for a checkpoint of format packed, and this one is hf",
      CERTIFICATE_FILE,
    ]);
    expect(error.next).toContain("`certificate`");
    const beside = `${work}/beside`;
    cpSync(golden("tiny"), beside, { recursive: true });
    cpSync(ofPacked, `${beside}.${CERTIFICATE_FILE}`);
    expect((await again(beside).catch((thrown) => thrown)).code).toBe("CERTIFICATE_INVALID");
  });

  it("of a packed file, named for a folder: unproven, and says what was not compared", async () => {
    writeFileSync(ofPacked, encodeCertificate((await certificateIn(made.packed))!));
    expect(await again(made.hf, { certificate: ofPacked })).toMatchObject({
      verdict: "unproven",
      findingDetails: [
        { rule: "files-not-compared", message: expect.stringMatching(/tokenizer.*not compared/) },
      ],
    });
    expect((await again(made.hf, { certificate: ofPacked, strict: true })).verdict).toBe("different");
  });

  it.each(["packed", "nemo2"] as const)(
    "of a folder, named for %s made of it: side files are compared",
    async (to) => {
      expect(await again(made[to], { certificate: ofHf })).toMatchObject({ verdict: "same", findings: [] });
    },
  );

  it.each<[string, Record<string, string | null>, string, readonly string[]]>([
    ["another tokenizer", { "tokenizer.json": "{}" }, "different", ["file-differs tokenizer.json"]],
    ["another chat template", { "chat_template.jinja": "x" }, "same", ["file-differs chat_template.jinja"]],
    ["no tokenizer", { "tokenizer.json": null }, "same", ["file-absent tokenizer.json"]],
    ["remote code", { "modeling.py": "x" }, "different", ["file-added modeling.py"]],
  ])("of a folder, named for a packed file with %s", async (_, files, verdict, found) => {
    const folder = edited(golden("tiny"), files);
    const packed = `${folder}.isologit`;
    await convert(folder, packed, { ...BYTES, verify: "off" });
    const report = await again(packed, { certificate: ofHf });
    expect(report.verdict).toBe(verdict);
    expect(report.findingDetails.map(({ rule, at }) => `${rule} ${at.file}`)).toEqual(found);
    expect((await again(packed, { certificate: ofHf, strict: true })).verdict).toBe("different");
  });
});

const certificateIn = async (address: string) => {
  const { roots } = await again(address);
  return readMatchingCertificate(address, roots.b);
};
