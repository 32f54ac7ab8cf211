/** A certificate that lies with a source, or with a side of `verify A B`, is held against it. */
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { recast } from "../../src/api/recast.ts";
import { verify } from "../../src/api/verify.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import type { Event } from "../../src/core/events.ts";
import { codeOf, errorOf } from "../support/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { flip } from "../support/packed.ts";

const work = workFolder();
let counter = 0;
const fresh = (ending = "") => join(work, `${counter++}${ending}`);
const BYTES = { verify: "bytes" } as const;

const certified = fresh();
await convert(golden("tiny"), certified, { to: "hf", ...BYTES });

/** A copy of the certified folder in which something was done since. */
function since(change: (folder: string) => void): string {
  const folder = fresh();
  cpSync(certified, folder, { recursive: true });
  change(folder);
  return folder;
}
const weights = (folder: string) => join(folder, "model.safetensors");
const flipped = () => since((folder) => void flip(weights(folder), weights(folder), 400_001, 6));

describe("a certified source that was changed since", () => {
  it.each(["packed", "hf", "nemo2"])("is not converted to %s, and the tensor is named", async (to) => {
    const [source, out] = [flipped(), fresh(to === "packed" ? ".isologit" : "")];
    const error = await errorOf(() => convert(source, out, { to, ...BYTES }));
    expect(error).toMatchObject({
      code: "CERTIFICATE_CONTRADICTED",
      exit: 3,
      at: { file: CERTIFICATE_FILE },
    });
    expect(error.message).toContain(error.at.tensor);
    expect(error.next).toContain(`isologit verify ${source}`);
    expect([existsSync(out), existsSync(`${out}.partial`)]).toEqual([false, false]);
    expect((await verify(source, undefined, BYTES)).firstDivergence?.tensors).toContain(error.at.tensor);
  });

  it("is not recast", async () => {
    const options = { dtype: "fp8-e4m3", keepEnds: 0, ...BYTES } as const;
    expect(await codeOf(() => recast(flipped(), fresh(), options))).toBe("CERTIFICATE_CONTRADICTED");
  });

  it("is converted once the certificate is gone", async () => {
    const source = flipped();
    rmSync(join(source, CERTIFICATE_FILE));
    expect((await convert(source, fresh(".isologit"), BYTES)).verification?.verdict).toBe("same");
  });

  it("is refused where its config was changed", async () => {
    const source = since((folder) => {
      const path = join(folder, "config.json");
      writeFileSync(path, readFileSync(path, "utf8").replaceAll("1e-05", "1e-06"));
    });
    expect(await codeOf(() => convert(source, fresh(".isologit"), BYTES))).toBe("CERTIFICATE_CONTRADICTED");
  });

  it("is converted without verification, and a warning tells what was not looked at", async () => {
    const events: Event[] = [];
    const watch = (event: Event) => void events.push(event);
    await convert(flipped(), fresh(".isologit"), { verify: "off", watch });
    const told = events.flatMap((event) => (event.type === "warning" ? event.message : []));
    expect(told).toContainEqual(expect.stringContaining(CERTIFICATE_FILE));
  });

  it("is a finding of verify A B, on either side, and different under --strict", async () => {
    const [one, other] = [flipped(), flipped()];
    const report = await verify(one, other, BYTES);
    expect(report.verdict).toBe("same");
    const contradicted = report.findingDetails.filter(({ rule }) => rule === "certificate-contradicted");
    expect(contradicted).toHaveLength(2);
    expect(contradicted[0]).toMatchObject({ severity: "warning", at: { file: CERTIFICATE_FILE } });
    expect((await verify(one, other, { ...BYTES, strict: true })).verdict).toBe("different");
  });
});

describe("side files of a certified source that were changed since", () => {
  const edited = since((folder) => {
    writeFileSync(join(folder, "tokenizer.json"), `${readFileSync(join(folder, "tokenizer.json"), "utf8")} `);
    writeFileSync(join(folder, "modeling_added.py"), "print()\n");
  });

  it("are findings of a conversion, and different under --strict", async () => {
    const { verification } = await convert(edited, fresh(".isologit"), BYTES);
    const files = verification?.findingDetails
      .filter(({ rule }) => rule === "certificate-contradicted")
      .map(({ at }) => at.file);
    expect([verification?.verdict, files]).toEqual(["same", ["tokenizer.json", "modeling_added.py"]]);
    const strict = await convert(edited, fresh(".isologit"), { ...BYTES, strict: true });
    expect(strict.verification?.verdict).toBe("different");
  });
});

describe("nothing is held against", () => {
  const rules = async (source: string) => {
    const { verification } = await convert(source, fresh(".isologit"), BYTES);
    expect(verification?.verdict).toBe("same");
    return verification?.findingDetails
      .map(({ rule }) => rule)
      .filter((rule) => rule.startsWith("certificate"));
  };

  it("what is as it was certified, in a folder, a file, and beside a file", async () => {
    expect(await rules(certified)).toEqual([]);
    const packed = fresh(".isologit");
    await convert(certified, packed, BYTES);
    const { verification } = await convert(packed, fresh(), { to: "hf", ...BYTES });
    expect(verification?.findings.filter((text) => text.includes("certificate"))).toEqual([]);
    const ranks = fresh();
    await convert(certified, ranks, { to: "megatron", tp: 2, ...BYTES });
    expect(existsSync(join(ranks, CERTIFICATE_FILE))).toBe(true);
    expect(await rules(ranks)).toEqual([]);
  });

  it("a certificate of another format, which is told", async () => {
    const ranks = fresh();
    await convert(certified, ranks, { to: "megatron", ...BYTES });
    const source = since((folder) => cpSync(join(ranks, CERTIFICATE_FILE), join(folder, CERTIFICATE_FILE)));
    expect(await rules(source)).toEqual(["certificate-elsewhere"]);
  });

  it("a certificate that was edited, which is told", async () => {
    const source = since((folder) => {
      const path = join(folder, CERTIFICATE_FILE);
      writeFileSync(path, readFileSync(path, "utf8").replace('"verdict":"same"', '"verdict":"within"'));
    });
    expect(await rules(source)).toEqual(["certificate-invalid"]);
  });
});
