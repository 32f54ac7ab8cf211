/**
 * Experts in certificates: a recast whose routers would choose otherwise is still what was certified, a near tie may
 * fall the other way on another backend, and anything else that a router chooses is different.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import {
  type Certificate,
  type CertificateBody,
  decodeCertificate,
  encodeCertificate,
  sealCertificate,
} from "../../src/certificate/certificate.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import type { VerifyReport } from "../../src/verify/report.ts";
import { codeOf } from "../support/errors.ts";
import { familyGolden, golden, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";

const work = workFolder();
const QUICK = { threads: 1, memoryBytes: 64 * 1024 * 1024 };
const FEW = { ...QUICK, tokens: 17 };

const certificateIn = (folder: string): Certificate =>
  decodeCertificate(readFileSync(join(folder, CERTIFICATE_FILE)), CERTIFICATE_FILE);

let lies = 0;
/** A folder against its certificate, in which `change` changed something before it was sealed. */
async function against(
  folder: string,
  change: (body: CertificateBody) => Partial<CertificateBody> = () => ({}),
) {
  const { sha256: _, signature: __, ...body } = certificateIn(folder);
  const path = join(work, `certificate-${lies++}.json`);
  writeFileSync(path, encodeCertificate(sealCertificate({ ...body, ...change(body) })));
  return verify(folder, undefined, { ...QUICK, certificate: path });
}

const behaviour = (report: VerifyReport) => ({
  verdict: report.verdict,
  metrics: metricsWith(report, "logits", "normsRel"),
});

describe.each([
  ["moe", golden("moe")],
  ["latent-moe", golden("latent-moe")],
  ["mixtral", familyGolden("mixtral")],
  ["qwen3_moe", familyGolden("qwen3_moe")],
])("%s in FP8, which would choose other experts than its source", (name, source) => {
  const folder = join(work, name);

  it("is what was certified, bit for bit", async () => {
    const { verification } = await convert(source, folder, {
      ...{ to: "hf", dtype: "fp8-e4m3", recipe: "all-linear", ...QUICK },
    });
    const { routing } = verification!.rungs[2]!.metrics as { routing: { flips: number } };
    expect(routing.flips).toBeGreaterThan(10);
    expect(certificateIn(folder).fingerprint!.experts!.some(({ own }) => own !== undefined)).toBe(true);
    const report = await verify(folder, undefined, QUICK);
    expect(behaviour(report)).toMatchObject({
      verdict: "same",
      metrics: { relL2: 0, routing: { flips: 0, beyond: 0 } },
    });
  });

  it("by a certificate that does not know its experts is not proven, and says why", async () => {
    const report = await against(folder, ({ fingerprint }) => {
      const { experts: _, ...without } = fingerprint!;
      return { fingerprint: without };
    });
    expect(report.rungs.map(({ verdict }) => verdict)).toEqual(["same", "same", "unproven"]);
    expect(report.findings).toEqual([expect.stringContaining("does not list the chosen experts")]);
  });

  it("by experts that its prompt cannot have chosen is refused", async () => {
    const with_ = (followed: string) =>
      codeOf(() =>
        against(folder, ({ fingerprint }) => ({
          fingerprint: {
            ...fingerprint!,
            experts: fingerprint!.experts!.map((one, i) => (i === 0 ? { ...one, followed } : one)),
          },
        })),
      );
    const { followed } = certificateIn(folder).fingerprint!.experts![0]!;
    expect(await with_(followed.slice(4))).toBe("CERTIFICATE_INVALID");
    expect(await with_(`////${followed.slice(4)}`)).toBe("CERTIFICATE_INVALID");
    expect(
      await codeOf(() =>
        against(folder, ({ fingerprint }) => ({ fingerprint: { ...fingerprint!, experts: [] } })),
      ),
    ).toBe("CERTIFICATE_INVALID");
  });
});

it("kept, it verifies by a certificate that does not know its experts", async () => {
  const folder = join(work, "kept");
  await convert(golden("moe"), folder, { to: "hf", ...FEW });
  const report = await against(folder, ({ fingerprint }) => {
    const { experts: _, ...without } = fingerprint!;
    return { fingerprint: without };
  });
  expect(report).toMatchObject({ verdict: "same", findings: [] });
});

/** A folder in which experts 1 and 2 of a layer are alike to the router: of two equal the first wins. */
async function tiedIn(
  source: string,
  {
    name,
    gate,
    change,
  }: { readonly name: string; readonly gate: string; readonly change: (e: Editor) => void },
): Promise<string> {
  const editor = new Editor(await copyOf(source));
  editor.rows(gate, (row) => (row === 2 ? 1 : row));
  change(editor);
  const folder = join(work, name);
  await convert(written(editor.copy, `${folder}-source`), folder, { to: "hf", ...FEW });
  return folder;
}

/** As a backend on which the tie fell the other way would have recorded it. */
const elsewhere = (folder: string, backend = "webgpu") => ({
  fingerprint: { ...certificateIn(folder).fingerprint!, backend },
});

/**
 * Of layer 4's experts 1 and 2, of one group, made alike to the router: where it has to choose between them the first
 * wins. `ahead` is what the second's score is given more.
 */
describe("a tie in a router", async () => {
  const LAYER = 4;
  const tied = (name: string, ahead: number) =>
    tiedIn(golden("moe"), {
      name,
      gate: `backbone.layers.${LAYER}.mixer.gate.weight`,
      change: (editor) => {
        let even = 0;
        editor.f32(`backbone.layers.${LAYER}.mixer.gate.e_score_correction_bias`, (value, expert) => {
          if (expert === 1) even = value;
          return expert === 2 ? even + ahead : value;
        });
      },
    });
  const even = await tied("even", 0);
  const near = await tied("near", 1e-5);
  const far = await tied("far", 1e-3);
  it("falls alike on one backend", async () => {
    expect(behaviour(await against(even))).toMatchObject({
      verdict: "same",
      metrics: { routing: { flips: 0 } },
    });
  });

  it.each([
    ["even", even, near],
    ["near", near, even],
  ])("that fell the other way on another backend is followed, and counted: %s", async (_, here, there) => {
    const { verdict, metrics } = behaviour(await against(here, () => elsewhere(there)));
    expect(verdict).toBe("within");
    expect(metrics).toMatchObject({ routing: { flips: expect.any(Number), beyond: 0 }, firstLayer: null });
    expect(metrics.routing!.flips).toBeGreaterThan(0);
    expect(metrics.relL2).toBeLessThan(1e-6); // with its own experts it would be another function
  });

  it("that fell the other way where the bits are promised is different", async () => {
    expect((await against(even, () => elsewhere(near, "wasm"))).verdict).toBe("different");
  });

  it("and one that is none, but was chosen so, is different, at its layer", async () => {
    const { verdict, metrics } = behaviour(await against(far, () => elsewhere(even)));
    expect(verdict).toBe("different");
    expect(metrics).toMatchObject({ firstLayer: LAYER });
    expect(metrics.routing!.beyond).toBeGreaterThan(0);
  });
});

/** The softmax router has no score but its product: expert 2 differs from expert 1 in the weight of one input. */
describe("a tie in a softmax router", async () => {
  const LAYER = 3;
  const gate = "model.layers.1.block_sparse_moe.gate.weight";
  const tied = (name: string, weight: number) =>
    tiedIn(familyGolden("mixtral"), {
      name: `softmax-${name}`,
      gate,
      change: (editor) =>
        editor.values(gate, (value, i) => {
          if (i % 64 !== 0 || i < 64 || i >= 192) return value;
          return i === 64 ? 0 : weight;
        }),
    });
  const [even, near, far] = [await tied("even", 0), await tied("near", 1e-6), await tied("far", 0.05)];

  it.each([
    ["even", even, near],
    ["near", near, even],
  ])("that fell the other way on another backend is followed, and counted: %s", async (_, here, there) => {
    const { verdict, metrics } = behaviour(await against(here, () => elsewhere(there)));
    expect(verdict).toBe("within");
    expect(metrics).toMatchObject({ routing: { beyond: 0 }, firstLayer: null });
    expect(metrics.routing!.flips).toBeGreaterThan(0);
  });

  it("and one that is none is different, at its layer", async () => {
    const { verdict, metrics } = behaviour(await against(far, () => elsewhere(even)));
    expect(verdict).toBe("different");
    expect(metrics).toMatchObject({ firstLayer: LAYER });
    expect(metrics.routing!.beyond).toBeGreaterThan(0);
  });
});
