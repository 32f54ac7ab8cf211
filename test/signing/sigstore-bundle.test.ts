/** Sigstore bundles over whole checkpoints: what other software expects of them, and that nothing changes unseen. */
import { createHash, createPublicKey, createVerify, generateKeyPairSync, type KeyObject } from "node:crypto";
import { cpSync, existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { CERTIFICATE_FILE } from "../../src/core/checkpoint.ts";
import { signBundle } from "../../src/signing/sigstore-bundle.ts";
import { codeOf } from "../support/errors.ts";
import { filesOf, golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const QUICK = { verify: "bytes", threads: 1, memoryBytes: 64 * 1024 * 1024 } as const;

interface Keys {
  readonly privateFile: string;
  readonly publicFile: string;
  readonly privateKey: KeyObject;
}
function keys(name: string, namedCurve?: string): Keys {
  const pair =
    namedCurve === undefined ? generateKeyPairSync("ed25519") : generateKeyPairSync("ec", { namedCurve });
  const [privateFile, publicFile] = [join(work, `${name}.pem`), join(work, `${name}.pub.pem`)];
  writeFileSync(privateFile, pair.privateKey.export({ format: "pem", type: "pkcs8" }));
  writeFileSync(publicFile, pair.publicKey.export({ format: "pem", type: "spki" }));
  return { privateFile, publicFile, privateKey: pair.privateKey };
}
const owner = keys("owner", "P-256");
const other = keys("other", "P-256");
const edwards = keys("edwards");

const folder = join(work, "tiny");
const packed = join(work, "tiny.isologit");
const [folderSig, packedSig] = [`${folder}.sig`, `${packed}.sig`];
const sign = { ...QUICK, sign: owner.privateFile };
const signed = await convert(golden("tiny"), folder, { ...sign, to: "hf", bundle: folderSig });
await convert(golden("tiny"), packed, { ...sign, to: "packed", bundle: packedSig });

const trusted = { bundle: folderSig, publicKey: owner.publicFile };
const met = (address: string, options: VerifyOptions) => verify(address, undefined, { ...QUICK, ...options });
const coverOf = async (address: string, options: VerifyOptions) =>
  (await met(address, options)).rungs.find(({ rung }) => rung === "cover")!;

let copies = 0;
/** A copy of the signed folder without its certificate, so that the bundle alone is met. */
function bare(): string {
  const copy = join(work, `bare-${copies++}`);
  cpSync(folder, copy, { recursive: true });
  return copy;
}
function written(text: string): string {
  const file = join(work, `bundle-${copies++}.sig`);
  writeFileSync(file, text);
  return file;
}

interface Parts {
  dsseEnvelope: { payload: string; payloadType: string; signatures: { sig: string }[] };
  verificationMaterial: { publicKey: { hint: string } };
}
const partsOf = (file: string): Parts => JSON.parse(readFileSync(file, "utf8"));
const statementOf = (file: string) =>
  JSON.parse(Buffer.from(partsOf(file).dsseEnvelope.payload, "base64").toString());

describe("what is signed with a key", () => {
  it("is every file, the certificate with it, in model signing's form", () => {
    const statement = statementOf(folderSig);
    const files = [...filesOf(folder).keys(), CERTIFICATE_FILE].sort();
    const resources = files.map((name) => ({
      name,
      algorithm: "sha256",
      digest: createHash("sha256")
        .update(readFileSync(join(folder, name)))
        .digest("hex"),
    }));
    const root = createHash("sha256");
    for (const { digest } of resources) root.update(Buffer.from(digest, "hex"));
    expect(statement).toEqual({
      _type: "https://in-toto.io/Statement/v1",
      subject: [{ name: "tiny", digest: { sha256: root.digest("hex") } }],
      predicateType: "https://model_signing/signature/v1.0",
      predicate: {
        serialization: {
          method: "files",
          hash_type: "sha256",
          allow_symlinks: false,
          ignore_paths: [".git", ".gitattributes", ".github", ".gitignore"],
        },
        resources,
      },
    });
    expect(signed.verification!.bundle).toMatchObject({ issuer: null, files: files.length });
  });

  it.each([
    ["P-256", "sha256"],
    ["P-384", "sha384"],
    ["P-521", "sha512"],
  ])("is signed as the envelope's own specification says, on %s with %s", async (curve, hash) => {
    const { privateKey, publicFile } = keys(curve, curve);
    const text = Buffer.from(JSON.stringify(statementOf(folderSig)));
    const bundle = written((await signBundle(text, privateKey)).text);
    const { dsseEnvelope, verificationMaterial } = partsOf(bundle);
    const { payload, payloadType } = dsseEnvelope;
    const said = Buffer.from(payload, "base64");
    const verifier = createVerify(hash);
    verifier.update(`DSSEv1 ${payloadType.length} ${payloadType} ${said.length} `).update(said);
    const signature = Buffer.from(dsseEnvelope.signatures[0]!.sig, "base64");
    expect(verifier.verify(createPublicKey(privateKey), signature)).toBe(true);
    const hint = createHash("sha256").update(readFileSync(publicFile)).digest("hex");
    expect(verificationMaterial.publicKey).toEqual({ hint });
    expect((await met(folder, { bundle, publicKey: publicFile })).verdict).toBe("same");
  });

  it("is met again, with the certificate and without one", async () => {
    for (const [address, bundle] of [
      [folder, folderSig],
      [packed, packedSig],
    ] as const) {
      const report = await met(address, { bundle, publicKey: owner.publicFile });
      expect(report).toMatchObject({ verdict: "same", findings: [], certificate: { signedBy: null } });
      expect(report.bundle?.signedBy).toBe(partsOf(bundle).verificationMaterial.publicKey.hint);
    }
    const others = join(work, "others");
    cpSync(golden("tiny"), others, { recursive: true });
    const statement = statementOf(folderSig);
    statement.predicate.resources = statement.predicate.resources.filter(
      ({ name }: { name: string }) => name !== CERTIFICATE_FILE,
    );
    const root = createHash("sha256");
    for (const { digest } of statement.predicate.resources) root.update(Buffer.from(digest, "hex"));
    statement.subject[0].digest.sha256 = root.digest("hex");
    const bundle = written((await signBundle(Buffer.from(JSON.stringify(statement)), owner.privateKey)).text);
    const report = await met(others, { bundle, publicKey: owner.publicFile });
    expect(report).toMatchObject({ verdict: "same", certificate: null, bundle: { issuer: null } });
    expect(report.findings).toEqual([expect.stringContaining("only the signed files were checked")]);
  });

  it("may be renamed as a whole, may have its bundle inside, and git's files beside", async () => {
    const file = join(work, "renamed.isologit");
    cpSync(packed, file);
    expect((await met(file, { bundle: packedSig, publicKey: owner.publicFile })).verdict).toBe("same");
    const copy = bare();
    cpSync(folderSig, join(copy, "model.sig"));
    mkdirSync(join(copy, ".github"));
    writeFileSync(join(copy, ".github", "x"), "x");
    writeFileSync(join(copy, ".gitattributes"), "x");
    const inside = { bundle: join(copy, "model.sig"), publicKey: owner.publicFile };
    expect(await coverOf(copy, inside)).toMatchObject({ verdict: "same" });
  });
});

describe("a change is seen", () => {
  it.each([
    ["config.json", 10],
    ["model.safetensors", 20],
    ["model.safetensors", -1],
    [CERTIFICATE_FILE, 30],
  ])("one bit of %s at %i", async (file, at) => {
    const copy = bare();
    const bytes = readFileSync(join(copy, file));
    const index = at < 0 ? bytes.length + at : at;
    bytes[index] = bytes[index]! ^ 1;
    writeFileSync(join(copy, file), bytes);
    const { compareSignedFiles } = await import("../../src/signing/signed-files.ts");
    expect((await compareSignedFiles(copy, trusted))!.differences).toEqual([
      `${file} differs from the signed file`,
    ]);
  });

  it("a renamed file, a new one, a missing one: the verdict is different", async () => {
    const copy = bare();
    renameSync(join(copy, "config.json"), join(copy, "Config.json"));
    const { compareSignedFiles } = await import("../../src/signing/signed-files.ts");
    expect((await compareSignedFiles(copy, trusted))!.differences).toEqual([
      "config.json was signed and is missing",
      "Config.json was not signed",
    ]);
    const more = bare();
    writeFileSync(join(more, "pickle.bin"), "x");
    expect(await coverOf(more, trusted)).toMatchObject({
      verdict: "different",
      metrics: {
        differences: ["pickle.bin was not there when it was certified", "pickle.bin was not signed"],
      },
    });
    const less = bare();
    rmSync(join(less, CERTIFICATE_FILE));
    expect(await coverOf(less, trusted)).toMatchObject({
      verdict: "different",
      metrics: { differences: [`${CERTIFICATE_FILE} was signed and is missing`] },
    });
    expect((await met(less, trusted)).verdict).toBe("different");
  });

  it("one bit anywhere in a packed file", async () => {
    const bytes = readFileSync(packed);
    const { compareSignedFiles } = await import("../../src/signing/signed-files.ts");
    const options = { bundle: packedSig, publicKey: owner.publicFile };
    for (const part of [0, 0.1, 0.5, 0.9, 1]) {
      const at = Math.floor(part * (bytes.length - 1));
      const copy = Buffer.from(bytes);
      copy[at] = copy[at]! ^ 0x10;
      const file = join(work, "flipped.isologit");
      writeFileSync(file, copy);
      expect((await compareSignedFiles(file, options))!.differences).toEqual([
        "the file differs from the signed file",
      ]);
    }
  });
});

describe("a bundle that is not right is refused by name", () => {
  const edited = (change: (parts: Parts) => void): string => {
    const parts = partsOf(folderSig);
    change(parts);
    return written(JSON.stringify(parts));
  };
  const resigned = async (change: (statement: ReturnType<typeof statementOf>) => void): Promise<string> => {
    const statement = statementOf(folderSig);
    change(statement);
    return written((await signBundle(Buffer.from(JSON.stringify(statement)), owner.privateKey)).text);
  };
  const code = (bundle: string, publicKey = owner.publicFile) =>
    codeOf(() => met(folder, { bundle, publicKey }));

  it("another key", async () => {
    expect(await code(folderSig, other.publicFile)).toBe("BUNDLE_UNTRUSTED");
    // without the hint only the signature can tell
    const hintless = edited((parts) => {
      parts.verificationMaterial.publicKey.hint = "";
    });
    expect(await code(hintless)).toBe("no error");
    expect(await code(hintless, other.publicFile)).toBe("BUNDLE_INVALID");
  });

  it("an edited statement, type or signature", async () => {
    const forged = statementOf(folderSig);
    forged.predicate.resources[0].digest = "0".repeat(64);
    const changes: ((parts: Parts) => void)[] = [
      ({ dsseEnvelope }) => {
        dsseEnvelope.payload = Buffer.from(JSON.stringify(forged)).toString("base64");
      },
      ({ dsseEnvelope }) => {
        dsseEnvelope.payloadType = "application/json";
      },
      ({ dsseEnvelope }) => {
        const sig = Buffer.from(dsseEnvelope.signatures[0]!.sig, "base64");
        sig[20] = sig[20]! ^ 1;
        dsseEnvelope.signatures[0]!.sig = sig.toString("base64");
      },
      ({ dsseEnvelope }) => {
        dsseEnvelope.signatures.push(dsseEnvelope.signatures[0]!);
      },
      ({ dsseEnvelope }) => {
        dsseEnvelope.signatures = [];
      },
    ];
    for (const change of changes) expect(await code(edited(change))).toBe("BUNDLE_INVALID");
    for (const text of ["", "{}", "[]", '{"mediaType":"x"}', readFileSync(folderSig, "utf8").slice(0, -9)]) {
      expect(await code(written(text)), text).toBe("BUNDLE_INVALID");
    }
  });

  it("a statement of another kind, or one that contradicts itself, rightly signed", async () => {
    const unknown = await resigned((statement) => {
      statement.predicateType = "https://slsa.dev/provenance/v1";
    });
    expect(await code(unknown)).toBe("BUNDLE_INVALID");
    for (const change of [
      (statement: ReturnType<typeof statementOf>) => {
        statement._type = "https://in-toto.io/Statement/v0.1";
      },
      (statement: ReturnType<typeof statementOf>) => {
        statement.predicate.resources[0].digest = "0".repeat(64);
      },
      (statement: ReturnType<typeof statementOf>) => {
        statement.predicate.resources[0].name = statement.predicate.resources[1].name;
      },
      (statement: ReturnType<typeof statementOf>) => {
        statement.subject.push(statement.subject[0]);
      },
    ]) {
      expect(await code(await resigned(change))).toBe("BUNDLE_INVALID");
    }
    const shards = await resigned((statement) => {
      statement.predicate.serialization.method = "shards";
    });
    expect(await code(shards)).toBe("UNSUPPORTED");
  });

  it("nobody named as trusted, or two ways at once", async () => {
    const ask = (options: VerifyOptions) => codeOf(() => met(folder, options));
    expect(await ask({ bundle: folderSig })).toBe("USAGE");
    expect(await ask({ ...trusted, sigstoreIdentity: "a" })).toBe("USAGE");
    expect(await ask({ bundle: folderSig, trustedRoot: folderSig, sigstoreIdentity: "a" })).toBe("USAGE");
    expect(await ask({ sigstoreIssuer: "https://a" })).toBe("USAGE");
    expect(await ask({ bundle: folderSig, publicKey: edwards.publicFile })).toBe("USAGE");
    expect(await ask({ ...trusted, bundle: join(work, "none.sig") })).toBe("NOT_FOUND");
  });
});

describe("signing is refused before anything is written", () => {
  it.each([
    ["without a key", "USAGE", { bundle: `${work}/x.sig` }],
    ["with an Ed25519 key", "USAGE", { bundle: `${work}/x.sig`, sign: edwards.privateFile }],
    ["unproven", "USAGE", { bundle: `${work}/x.sig`, sign: owner.privateFile, verify: "off" }],
    ["inside", "USAGE", { bundle: `${work}/x/model.sig`, sign: owner.privateFile }],
    ["over another", "DESTINATION_EXISTS", { bundle: folderSig, sign: owner.privateFile }],
    ["a certificate, with a curve's key", "USAGE", { sign: owner.privateFile }],
  ] as const)("%s", async (_, code, options: ConvertOptions) => {
    const asked = { ...QUICK, to: "hf", ...options };
    expect(await codeOf(() => convert(golden("tiny"), `${work}/x`, asked))).toBe(code);
    expect(existsSync(`${work}/x`) || existsSync(`${work}/x.sig`)).toBe(false);
  });

  it("and one that is missing is made for a finished destination", async () => {
    const bundle = join(work, "late.sig");
    const report = await convert(golden("tiny"), folder, { ...sign, to: "hf", resume: true, bundle });
    expect(report.bytesWritten).toBe(0);
    expect(statementOf(bundle)).toEqual(statementOf(folderSig));
  });
});
