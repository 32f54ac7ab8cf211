import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { readHeader } from "../../formats/codec/safetensors.ts";
import { convert } from "../../src/api/convert.ts";
import { fileStore } from "../../src/io/file.ts";
import { fp8Dialects, workFolder } from "../support/goldens.ts";

type Expected = Record<string, Record<string, { bf16: string }>>;
const expected: Expected = JSON.parse(readFileSync(fp8Dialects("expected.json"), "utf8"));
const work = workFolder();
const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

describe.each(Object.keys(expected))("%s", (folder) => {
  it("is decoded to BF16 as the library that wrote it decodes it", async () => {
    const out = join(work, `${folder}-bf16`);
    await convert(fp8Dialects(folder), out, { dtype: "bf16", verify: "off" });
    const bytes = readFileSync(join(out, "model.safetensors"));
    await using source = await (await fileStore(out)).open("model.safetensors");
    const { tensors } = await readHeader(source, "model.safetensors");
    for (const [module, { bf16 }] of Object.entries(expected[folder]!)) {
      const { dtype, begin, end } = tensors.find(({ name }) => name === `${module}.weight`)!;
      expect(dtype).toBe("BF16");
      expect(sha256(bytes.subarray(begin, end)), module).toBe(bf16);
    }
    expect(JSON.parse(readFileSync(join(out, "config.json"), "utf8"))).not.toHaveProperty(
      "quantization_config",
    );
    expect(readdirSync(out)).not.toContain("hf_quant_config.json");
  });

  it("comes home from a packed file byte for byte", async () => {
    const [packed, home] = [join(work, `${folder}.isologit`), join(work, folder)];
    await convert(fp8Dialects(folder), packed, { verify: "off" });
    await convert(packed, home, { to: "hf", verify: "off" });
    for (const file of readdirSync(fp8Dialects(folder))) {
      expect(readFileSync(join(home, file)).equals(readFileSync(join(fp8Dialects(folder), file))), file).toBe(
        true,
      );
    }
  });
});
