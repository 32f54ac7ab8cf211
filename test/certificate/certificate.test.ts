/** Certificates: what they say, that they can be checked again, and that nothing can change unseen. */
import { execFileSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { cpSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import {
  type Certificate,
  decodeCertificate,
  encodeCertificate,
  sealCertificate,
} from "../../src/certificate/certificate.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import { canonicalJson } from "../../src/core/hash.ts";
import { nemotronH } from "../../src/families/nemotron-h/index.ts";
import {
  compareFingerprints,
  type Fingerprint,
  FingerprintRecorder,
} from "../../src/inference/fingerprint.ts";
import { codeOf } from "../support/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import { expectFlipsRed } from "../support/verify/certified-flips.ts";

const work = workFolder();
const QUICK = { threads: 1, memoryBytes: 64 * 1024 * 1024 };
const FEW = { ...QUICK, tokens: 17 };
const made = {
  hf: `${work}/tiny`,
  packed: `${work}/tiny.isologit`,
  shards: `${work}/sharded`,
  fp8: `${work}/fp8`,
};
await convert(golden("tiny"), made.hf, { to: "hf", ...FEW });
await convert(golden("tiny"), made.packed, { to: "packed", ...FEW });
await convert(golden("sharded"), made.shards, { to: "hf", ...FEW });
await convert(golden("tiny"), made.fp8, { to: "hf", dtype: "fp8-e4m3", keepEnds: 0, ...FEW });

const certificateIn = (folder: string): Certificate =>
  decodeCertificate(readFileSync(join(folder, CERTIFICATE_FILE)), CERTIFICATE_FILE);
const again = (address: string, options: VerifyOptions = {}) =>
  verify(address, undefined, { ...QUICK, ...options });

let copies = 0;
function copyOf(address: string): string {
  const copy = `${work}/copy-${copies++}${address.endsWith(".isologit") ? ".isologit" : ""}`;
  cpSync(address, copy, { recursive: true });
  return copy;
}

describe("what was certified verifies again, without the source", () => {
  it.each(Object.entries(made))("%s", async (_, address) => {
    const report = await again(address);
    expect(report.rungs.map(({ rung, verdict }) => [rung, verdict])).toEqual([
      ["cover", "same"],
      ["bytes", "same"],
      ["logits", "same"],
    ]);
    expect(report).toMatchObject({ verdict: "same", backend: "wasm", findings: [], firstDivergence: null });
    expect(report.certificate).toMatchObject({ reference: false, signedBy: null });
    expect((await again(address, { verify: "bytes" })).rungs.map(({ rung }) => rung)).toEqual([
      "cover",
      "bytes",
    ]);
  });

  it("after packing and unpacking: the root is the same in every format", async () => {
    const unpacked = `${work}/unpacked`;
    const { verification } = await convert(made.packed, unpacked, { to: "hf", ...FEW });
    expect(verification?.roots.b).toBe(certificateIn(made.hf).destination.root);
    expect((await again(unpacked, { certificate: join(made.hf, CERTIFICATE_FILE) })).verdict).toBe("same");
    const packed = await again(made.packed, { certificate: join(made.hf, CERTIFICATE_FILE) });
    expect(packed.verdict).toBe("same");
    expect(packed.findings).toEqual([]);
    const other = await again(made.shards, { certificate: join(made.hf, CERTIFICATE_FILE) });
    expect(other.verdict).toBe("different");
  });

  it("a certificate does not travel: files go home byte for byte, and get one of their own", async () => {
    const packed = `${work}/home.isologit`;
    await convert(made.hf, packed, { to: "packed", ...FEW });
    await convert(packed, `${work}/home`, { to: "hf", ...FEW });
    const files = readdirSync(golden("tiny")).sort();
    expect(readdirSync(`${work}/home`).sort()).toEqual([...files, CERTIFICATE_FILE].sort());
    for (const file of files) {
      expect(
        readFileSync(join(work, "home", file)).equals(readFileSync(join(golden("tiny"), file))),
        file,
      ).toBe(true);
    }
  });

  it("is the same bytes for any threads and any memory, and says nothing of time and place", async () => {
    const other = `${work}/other`;
    await convert(golden("tiny"), other, { to: "hf", tokens: 17, threads: 3, memoryBytes: 48 * 1024 * 1024 });
    const text = readFileSync(join(other, CERTIFICATE_FILE), "utf8");
    expect(text).toBe(readFileSync(join(made.hf, CERTIFICATE_FILE), "utf8"));
    expect(text).not.toContain(work);
  });

  it("records what was read, what was recast, and each rung", () => {
    const certificate = certificateIn(made.fp8);
    expect(certificate).toMatchObject({
      verdict: "within",
      backend: "wasm",
      prompt: { textTokens: 0, seed: 0 },
      limits: { klMean: 0.01, wiring: 0 },
      reference: false,
    });
    expect(certificate.recast).toEqual({ "BF16 to F8_E4M3": 14 });
    expect(certificate.source.root).toBe(certificateIn(made.hf).destination.root);
    expect(certificate.rungs.map(({ rung, verdict }) => `${rung} ${verdict}`)).toEqual([
      "cover same",
      "bytes within",
      "logits within",
    ]);
    expect(certificate.rungs[2]!.metrics).toMatchObject({ controlsCaught: 36, controlsVoid: 0 });
    expect(certificate.fingerprint!.positions).toHaveLength(17);
    expect(certificate.fingerprint!.norms).toHaveLength(10);
    expect(Object.keys(certificate.leaves)).toHaveLength(58);
  });

  it("by bytes alone it holds no fingerprint, and says so", async () => {
    const out = `${work}/by-bytes`;
    await convert(golden("moe"), out, { to: "hf", verify: "bytes", ...QUICK });
    const report = await again(out);
    expect(report).toMatchObject({ verdict: "same", backend: null });
    expect(report.findings).toEqual([expect.stringContaining("behaviour was not checked")]);
  });

  it("--resume on a finished destination tells the one that is there, if it is of what is there", async () => {
    const resumed = async (to: string, path: string) =>
      (await convert(golden("tiny"), path, { to, resume: true, verify: "bytes", ...QUICK })).verification!;
    const { sha256 } = certificateIn(made.hf);
    expect((await resumed("hf", made.hf)).certificate?.sha256).toBe(sha256);
    expect((await resumed("packed", made.packed)).certificate).not.toBeNull();
    const copy = copyOf(made.hf);
    cpSync(join(made.shards, CERTIFICATE_FILE), join(copy, CERTIFICATE_FILE));
    expect((await resumed("hf", copy)).certificate).toBeNull();
    rmSync(join(copy, CERTIFICATE_FILE));
    expect((await resumed("hf", copy)).certificate).toBeNull();
  });

  it("means nothing beside a second checkpoint, and neither do keys and bundles", async () => {
    const both = (options: VerifyOptions) => codeOf(() => verify(made.hf, made.packed, options));
    for (const options of [
      { certificate: join(made.hf, CERTIFICATE_FILE) },
      { publicKey: "key.pem" },
      { bundle: "model.sig" },
      { trustedRoot: "root.json" },
    ]) {
      expect(await both({ ...QUICK, ...options })).toBe("USAGE");
    }
    // @ts-expect-error: nor may it be written down
    await expect(verify(made.hf, made.packed, { publicKey: "key.pem" })).rejects.toThrow(
      "`publicKey` is for verify A alone",
    );
  });

  it("beside a file it is a file, of a size that certificates have", async () => {
    const packed = `${work}/beside.isologit`;
    const beside = `${packed}.${CERTIFICATE_FILE}`;
    await convert(golden("tiny"), packed, { to: "packed", verify: "off", ...QUICK });
    const both = async () => [
      await codeOf(() => again(packed)),
      await codeOf(() => convert(packed, `${work}/home`, { to: "hf", verify: "bytes", ...QUICK })),
    ];
    execFileSync("mkfifo", [beside]); // nobody will write to it
    expect(await both()).toEqual(["PATH_UNSAFE", "PATH_UNSAFE"]);
    rmSync(beside);
    writeFileSync(beside, "");
    truncateSync(beside, 2 ** 33);
    expect(await both()).toEqual(["LIMIT_EXCEEDED", "LIMIT_EXCEEDED"]);
  });

  it("where there is none, that is told; --verify off writes none", async () => {
    await convert(golden("tiny"), `${work}/off`, { to: "hf", verify: "off", ...QUICK });
    expect(readdirSync(`${work}/off`)).not.toContain(CERTIFICATE_FILE);
    expect(await codeOf(() => again(`${work}/off`))).toBe("CERTIFICATE_MISSING");
    expect(await codeOf(() => again(made.hf, { certificate: `${work}/none` }))).toBe("NOT_FOUND");
    expect(
      await codeOf(() => convert(golden("tiny"), `${work}/x`, { to: "hf", verify: "off", sign: "k" })),
    ).toBe("USAGE");
  });
});

describe("the limits under which it was issued", () => {
  const absurd = `${work}/absurd`;

  it("are told with the verdict and what was measured, and no less where they are wider than usual", async () => {
    const report = await again(made.fp8, { verify: "bytes" });
    expect(report.certificate).toMatchObject({
      verdict: "within",
      limits: { klMean: 0.01, klP99: 0.1, top1: 0.97, wiring: 0 },
      quality: { klMean: expect.any(Number), klP99: expect.any(Number), top1: expect.any(Number) },
    });
    expect(report.findings).toEqual([]);
    await convert(golden("tiny"), absurd, { to: "hf", dtype: "fp8-e4m3", kl: 1e9, top1: 0, ...FEW });
    const wide = await again(absurd, { verify: "bytes" });
    expect(wide.verdict).toBe("same");
    expect(wide.certificate!.limits).toMatchObject({ klMean: 1e9, top1: 0 });
    expect(wide.findings).toEqual([
      "it was certified under limits that are wider than usual: klMean 1000000000 (usual 0.01), " +
        "klP99 10000000000 (usual 0.1), top1 0 (usual 0.97)",
    ]);
    expect((await again(made.hf, { verify: "bytes" })).certificate).toMatchObject({
      verdict: "same",
      limits: { klMean: 0, klP99: 0, top1: 1 },
      quality: { klMean: 0, klP99: 0, top1: 1 },
    });
  });

  it("others that are given now are judged by what was measured then", async () => {
    const exceeded = await again(made.fp8, { verify: "bytes", kl: 1e-9 });
    expect(exceeded.verdict).toBe("different");
    expect(exceeded.findings.join()).toContain("when it was certified, the mean KL divergence is");
    expect((await again(made.fp8, { verify: "bytes", kl: 1, top1: 0 })).verdict).toBe("same");
    const out = `${work}/by-bytes-alone`;
    await convert(golden("tiny"), out, { to: "hf", verify: "bytes", ...QUICK });
    const unjudged = await again(out, { kl: 1 });
    expect(unjudged.verdict).toBe("unproven");
    expect(unjudged.findings.join()).toContain("(klMean) were not judged");
    expect(unjudged.certificate).toMatchObject({ verdict: "same", quality: null });
  });
});

describe("one flipped byte anywhere is red", () => {
  /** More places, and two bits of each, with the long tests. */
  it.each([
    ["hf", 2],
    ["packed", 12],
    ["shards", 1],
    ["fp8", 1],
  ] as const)("%s", async (name, count) => {
    await expectFlipsRed(made[name], count, ([, offset]) => [offset % 2 === 0 ? 1 : 0x20], work);
  });

  it("a bit of a weight is told by layer and tensor", async () => {
    const copy = copyOf(made.hf);
    const path = join(copy, "model.safetensors");
    const bytes = readFileSync(path);
    const length = Number(bytes.readBigUInt64LE(0));
    const name = "backbone.layers.3.mixer.k_proj.weight";
    bytes[8 + length + JSON.parse(bytes.toString("utf8", 8, 8 + length))[name].data_offsets[0]]! ^= 1;
    writeFileSync(path, bytes);
    const report = await again(copy);
    expect(report).toMatchObject({
      verdict: "different",
      firstDivergence: { layer: 3, kind: "attention", tensors: [name] },
    });
    expect(report.rungs.map(({ verdict }) => verdict)).toEqual(["same", "different", "different"]);
  });

  it("a file missing is different, one more is named", async () => {
    const copy = copyOf(made.hf);
    writeFileSync(join(copy, "NOTES.md"), "mine");
    const more = await again(copy, { verify: "bytes" });
    expect(more).toMatchObject({
      verdict: "same",
      findings: [expect.stringContaining("NOTES.md was not there")],
    });
    writeFileSync(join(copy, "tokenizer.json"), "{}");
    expect(metricsWith(await again(copy, { verify: "bytes" }), "cover", "files").differences).toEqual([
      "tokenizer.json has 2 bytes, not 23698",
    ]);
  });
});

describe("an edited certificate is refused", () => {
  const text = readFileSync(join(made.fp8, CERTIFICATE_FILE), "utf8");
  const edited = (change: (text: string) => string) =>
    codeOf(() => decodeCertificate(Buffer.from(change(text)), "c"));

  it.each<[string, (text: string) => string]>([
    ["a verdict", (t) => t.replace('"verdict":"within"', '"verdict":"same"')],
    ["a number", (t) => t.replace('"klMean":0.01', '"klMean":0.1')],
    ["white space", (t) => t.replace('{"backend"', '{ "backend"')],
    ["no newline", (t) => t.trimEnd()],
    ["more after it", (t) => `${t}\n`],
    ["another order", (t) => t.replace(/^\{("backend":"wasm"),(.*)\}\n$/, "{$2,$1}\n")],
    ["a key more", (t) => t.replace('{"backend"', '{"a":1,"backend"')],
    ["a key twice", (t) => t.replace('{"backend"', '{"backend":"wasm","backend"')],
    [
      "a hash of nothing",
      (t) => t.replace(/"sha256":"[0-9a-f]{64}","source"/, `"sha256":"${"0".repeat(64)}","source"`),
    ],
    ["no JSON", () => "certified"],
  ])("%s", async (_, change) => {
    expect(change(text)).not.toBe(text);
    expect(["CERTIFICATE_INVALID", "DUPLICATE_NAME"]).toContain(await edited(change));
  });

  it("any byte", async () => {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length; at += 97) {
      const broken = Buffer.from(bytes);
      broken[at]! ^= 1;
      expect(await codeOf(() => decodeCertificate(broken, "c")), String(at)).not.toBe("no error");
    }
  });

  it("sealed anew it is whole, and lies: the checkpoint is not what it says", async () => {
    const { sha256: _, ...body } = certificateIn(made.hf);
    const lie = sealCertificate({ ...body, destination: { ...body.destination, root: "f".repeat(64) } });
    writeFileSync(`${work}/lie.json`, encodeCertificate(lie));
    expect((await again(made.hf, { certificate: `${work}/lie.json` })).verdict).toBe("different");
  });
});

describe("signatures", () => {
  const key = (name: string, type: "ed25519" | "x25519" = "ed25519") => {
    const pair = generateKeyPairSync(type as "ed25519");
    writeFileSync(`${work}/${name}.pem`, pair.privateKey.export({ type: "pkcs8", format: "pem" }));
    writeFileSync(`${work}/${name}.pub.pem`, pair.publicKey.export({ type: "spki", format: "pem" }));
    return `${work}/${name}`;
  };
  const [mine, other, wrong] = [key("mine"), key("other"), key("wrong", "x25519")];

  it("are checked against the key that is named, in a folder and behind a packed file", async () => {
    for (const to of ["hf", "packed"] as const) {
      const out = `${work}/signed-${to}${to === "packed" ? ".isologit" : ""}`;
      const { verification } = await convert(golden("tiny"), out, { to, sign: `${mine}.pem`, ...FEW });
      const signedBy = verification!.certificate!.signedBy;
      expect(signedBy).toMatch(/^[0-9a-f]{64}$/);
      const report = await again(out, { publicKey: `${mine}.pub.pem`, verify: "bytes" });
      expect(report).toMatchObject({ verdict: "same", certificate: { signedBy } });
      const refused = (publicKey: string) => codeOf(() => again(out, { publicKey, verify: "bytes" }));
      expect(await refused(`${other}.pub.pem`)).toBe("CERTIFICATE_INVALID");
      expect(await refused(`${wrong}.pub.pem`)).toBe("USAGE");
      expect(await refused(join(golden("tiny"), "config.json"))).toBe("USAGE");
      expect(await refused(`${work}/none.pem`)).toBe("NOT_FOUND");
    }
    expect(await codeOf(() => again(made.hf, { publicKey: `${mine}.pub.pem` }))).toBe("CERTIFICATE_INVALID");
  });

  it("of another text, or with another key, are refused without any key named", async () => {
    const signed = certificateIn(`${work}/signed-hf`);
    const { sha256: _, signature, ...body } = signed;
    const forged = { ...sealCertificate({ ...body, tool: "isologit 9" }), signature: signature! };
    expect(await codeOf(() => decodeCertificate(encodeCertificate(forged), "c"))).toBe("CERTIFICATE_INVALID");
    for (const [from, to] of [
      ["value", "publicKey"],
      ["publicKey", "value"],
    ] as const) {
      const broken = { ...signed, signature: { ...signature!, [from]: signature![to] } };
      expect(await codeOf(() => decodeCertificate(encodeCertificate(broken), "c"))).toBe(
        "CERTIFICATE_INVALID",
      );
    }
    expect(decodeCertificate(encodeCertificate(signed), "c")).toEqual(signed);
  });
});

describe("behaviour", () => {
  it("by another wiring of the same bytes is different", async () => {
    const [native] = nemotronH.forward.natives;
    const mamba = native!.uses.mamba!.map((use) => {
      if (use.name !== "mixer.in_proj.weight") return use;
      const other: Record<string, string> = { B: "C", C: "B" };
      const feeds: typeof use.outputs = (d, at) =>
        use.outputs(d, at).map((feed) => ({ ...feed, to: other[feed.to] ?? feed.to }));
      return { ...use, outputs: feeds };
    });
    const { forward } = nemotronH;
    const natives = [{ ...native!, uses: { ...native!.uses, mamba } }];
    Object.assign(nemotronH, { forward: { ...forward, natives } });
    const report = await again(made.hf).finally(() => Object.assign(nemotronH, { forward }));
    expect(report.rungs.map(({ verdict }) => verdict)).toEqual(["same", "same", "different"]);
    expect(metricsWith(report, "logits", "firstLayer").firstLayer).toBe(0);
  });

  /** A fingerprint as the same model would give it on other kernels: each value off by `error`. */
  function shifted(fingerprint: Fingerprint, error: number): Fingerprint {
    type Value = Fingerprint["norms"][number];
    const off = (value: Value): Value => Number((Number(value) * (1 + error)).toPrecision(9));
    const positions = fingerprint.positions.map(({ top, sha256 }) => ({
      top: top.map(([word, value]): [number, Value] => [word, off(value)]),
      sha256: sha256.replace(/./g, "0"),
    }));
    return { backend: "webgpu", positions, norms: fingerprint.norms.map(off) };
  }

  it.each([
    ["webgpu", 1e-6, "within"],
    ["webgpu", 1e-4, "different"],
    ["wasm", 1e-6, "different"],
  ] as const)("recorded on %s and off by %f is %s", async (backend, error, verdict) => {
    const { sha256: _, ...body } = certificateIn(made.hf);
    const fingerprint = { ...shifted(body.fingerprint!, error), backend };
    const path = `${work}/${backend}-${error}.json`;
    writeFileSync(path, encodeCertificate(sealCertificate({ ...body, fingerprint })));
    const report = await again(made.hf, { certificate: path });
    expect(report.rungs.at(-1)).toMatchObject({ rung: "logits", verdict });
    expect(report.verdict).toBe(verdict);
  });

  it("fingerprints do not depend on how logits come in blocks, and keep the largest", () => {
    const logits = Float32Array.from({ length: 3 * 40 }, (_, i) => Math.fround(Math.sin(i * i)));
    const take = (widths: readonly number[]) => {
      const taker = new FingerprintRecorder(3, [[0, 39], [5], []]);
      let lo = 0;
      for (const width of widths) {
        const block = [0, 1, 2].flatMap((t) => [...logits.subarray(t * 40 + lo, t * 40 + lo + width)]);
        taker.logits(lo, width, Float32Array.from(block));
        lo += width;
      }
      return { taker, print: taker.finish("wasm") };
    };
    const { taker, print } = take([40]);
    expect(canonicalJson(take([1, 7, 32]).print)).toBe(canonicalJson(print));
    const row = [...logits.subarray(40, 80)];
    const best = row.map((value, word) => [word, value] as const).sort(([, a], [, b]) => b - a);
    expect(print.positions[1]!.top.map(([word]) => word)).toEqual(best.slice(0, 8).map(([word]) => word));
    expect([...taker.requested[0]!]).toEqual([
      [0, logits[0]],
      [39, logits[39]],
    ]);
    expect(compareFingerprints(print, print, take([40]).taker)).toMatchObject({ exact: true });
  });

  it("a logit that is no number is kept as such", () => {
    const taker = new FingerprintRecorder(1, [[0, 1, 2]]);
    taker.residual(Float32Array.of(NaN));
    taker.logits(0, 3, Float32Array.of(NaN, 1, Infinity));
    const print = taker.finish("wasm");
    expect(print.positions[0]!.top).toEqual(expect.arrayContaining([[2, "Infinity"]]));
    expect(print.norms).toEqual(["NaN"]);
    expect(compareFingerprints(print, print, taker)).toMatchObject({
      exact: true,
      logitsRelL2: 0,
      normsRel: 0,
    });
  });
});
