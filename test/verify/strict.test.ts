/** `strict`: a finding that names a difference makes the verdict `different`; a remark never does. */
import { existsSync, writeFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { check } from "../../src/api/check.ts";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import { difference, remark } from "../../src/core/finding.ts";
import { judgeFindings, verdictWith } from "../../src/verify/judge-findings.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

const work = workFolder();
const QUICK = { tokens: 17, threads: 1, memoryBytes: 64 * 1024 * 1024, verify: "bytes" } as const;
const tiny = await copyOf(golden("tiny"));
const plain = written(tiny, `${work}/plain`);
const other = edited(`${work}/other`, ({ copy }) =>
  copy.files.set("generation_config.json", Buffer.from('{"temperature": 5}')),
);

function edited(folder: string, change: (e: Editor) => void): string {
  const editor = new Editor(tiny);
  change(editor);
  return written(editor.copy, folder);
}

describe("verify", () => {
  it("names a difference, and judges it only where it is asked to", async () => {
    const lenient = await verify(plain, other, QUICK);
    const found = {
      rule: "file-differs",
      at: { file: "generation_config.json", tensor: null, offset: null },
    };
    expect(lenient.verdict).toBe("same");
    expect(lenient.findings).toEqual(["generation_config.json differs"]);
    expect(lenient.findingDetails).toEqual([
      { ...found, severity: "warning", message: "generation_config.json differs" },
    ]);
    const strict = await verify(plain, other, { ...QUICK, strict: true });
    expect(strict.verdict).toBe("different");
    expect(strict.rungs.map(({ rung, verdict }) => [rung, verdict])).toEqual([
      ["cover", "different"],
      ["bytes", "same"],
    ]);
    expect(strict.findingDetails).toMatchObject([{ ...found, severity: "error" }]);
  });

  it("remarks stay remarks", async () => {
    const options = { ...QUICK, verify: "logits", strict: true } as const;
    const fp8 = `${work}/fp8`;
    await convert(golden("tiny"), fp8, { to: "hf", dtype: "fp8-e4m3", keepEnds: 0, verify: "off" });
    const report = await verify(golden("tiny"), fp8, options);
    expect(report.verdict).toBe("within");
    expect(report.findingDetails).toMatchObject([{ rule: "quality-unjudged", severity: "note" }]);
    expect(report.unjudged).toEqual(["klMean", "klP99", "top1"]);
    const limited = await verify(golden("tiny"), fp8, { ...options, kl: 1 });
    expect(limited.unjudged).toEqual(["klP99", "top1"]);
  });

  it("against a certificate: a file that was added", async () => {
    const folder = `${work}/certified`;
    await convert(golden("tiny"), folder, { to: "hf", ...QUICK });
    writeFileSync(`${folder}/LICENSE`, "later");
    writeFileSync(`${folder}/notes.yaml`, "later");
    expect(await verify(folder, undefined, QUICK)).toMatchObject({
      verdict: "same",
      findingDetails: [
        { rule: "file-added", severity: "note", at: { file: "LICENSE" } },
        { rule: "file-added", severity: "warning", at: { file: "notes.yaml" } },
      ],
    });
    expect(await verify(folder, undefined, { ...QUICK, strict: true })).toMatchObject({
      verdict: "different",
      rungs: [
        { rung: "cover", verdict: "different" },
        { rung: "bytes", verdict: "same" },
      ],
    });
  });
});

it("convert: an own conversion has no difference to judge", async () => {
  const report = await convert(golden("tiny"), `${work}/strict`, { to: "nemo2", ...QUICK, strict: true });
  expect(report.verification).toMatchObject({ verdict: "same", findingDetails: [] });
  expect(existsSync(`${work}/strict`)).toBe(true);
});

it("check: a warning is an error", async () => {
  const folder = edited(`${work}/eos`, (e) => e.config({ eos_token_id: 7 }));
  const lenient = await check(folder);
  expect(lenient.ok).toBe(true);
  expect(lenient.findings.map(({ rule, severity }) => [rule, severity])).toContainEqual([
    "eos-disagrees",
    "warning",
  ]);
  const strict = await check(folder, { strict: true });
  expect(strict.ok).toBe(false);
  expect(strict.findings.filter(({ severity }) => severity === "warning")).toEqual([]);
});

it("the worst of verdict and findings", () => {
  const found = [difference("file-differs", "x"), remark("suspect", "y")];
  expect(verdictWith("within", judgeFindings(found, undefined))).toBe("within");
  expect(verdictWith("unproven", judgeFindings(found, true))).toBe("different");
  expect(verdictWith("same", judgeFindings(found.slice(1), true))).toBe("same");
});
