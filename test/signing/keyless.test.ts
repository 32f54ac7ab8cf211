/** Signing without a key: that what is signed is met offline, and what must not be believed is not. */
import { cpSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { verify } from "../../src/api/verify.ts";
import type { VerifyOptions } from "../../src/certificate/options.ts";
import { keylessSigner } from "../../src/signing/keyless.ts";
import type { KeylessOptions } from "../../src/signing/options.ts";
import { codeOf, errorOf } from "../support/errors.ts";
import { golden, workFolder } from "../support/goldens.ts";
import { metricsWith } from "../support/rungs.ts";
import {
  keylessWorld,
  type Oddity,
  type Services,
  tokenOf,
  type Who,
} from "../support/verify/keyless-world.ts";

const work = workFolder();
const QUICK = { verify: "bytes", threads: 1, memoryBytes: 64 * 1024 * 1024 } as const;
const who: Who = {
  identity: "https://github.com/us/models/.github/workflows/release.yml@refs/heads/main",
  issuer: "https://token.actions.test",
};

// these tests may themselves run where someone is vouched for
for (const name of ["SIGSTORE_ID_TOKEN", "ACTIONS_ID_TOKEN_REQUEST_URL", "HF_HUB_OFFLINE"])
  vi.stubEnv(name, "");

const world = await keylessWorld();
const services = await world.serve();
const asking = ({ url }: Services, by = who): KeylessOptions => ({
  identityToken: tokenOf(by),
  fulcioUrl: url,
  rekorUrl: `${url}/`,
});

const folder = join(work, "tiny");
const bundle = join(work, "tiny.sig");
const options: ConvertOptions = { ...QUICK, to: "hf", sign: "sigstore", bundle };
const signed = await convert(golden("tiny"), folder, { ...options, ...asking(services) });

let copies = 0;
function written(text: string): string {
  const file = join(work, `file-${copies++}`);
  writeFileSync(file, text);
  return file;
}
const text = readFileSync(bundle, "utf8");
const parts = JSON.parse(text);
const payload = Buffer.from(parts.dsseEnvelope.payload, "base64");
const signedBy = async (keyless: KeylessOptions) =>
  (await (await keylessSigner(keyless, undefined))(payload)).text;
const oddly = async (oddity: Oddity) => await signedBy(asking(await world.serve(oddity)));

const named = {
  trustedRoot: written(world.trustedRoot),
  sigstoreIdentity: who.identity,
  sigstoreIssuer: who.issuer,
};
const met = (address: string, more: VerifyOptions = {}) =>
  verify(address, undefined, { ...QUICK, bundle, ...named, ...more });
const code = (of: string, more: VerifyOptions = {}) =>
  codeOf(() => met(folder, { bundle: written(of), ...more }));

describe("what is signed without a key", () => {
  it("is met offline, by authority, logs, identity and issuer", async () => {
    expect(parts.mediaType).toBe("application/vnd.dev.sigstore.bundle.v0.3+json");
    expect(parts.verificationMaterial.tlogEntries).toHaveLength(1);
    const by = { signedBy: who.identity, issuer: who.issuer };
    expect(signed.verification).toMatchObject({ verdict: "same", bundle: by });
    expect(await met(folder)).toMatchObject({ verdict: "same", findings: [], bundle: by });
    expect(services.asked).toEqual(["POST /api/v2/signingCert", "POST /api/v1/log/entries"]);
  });

  it("and so where a timestamp authority was asked besides", async () => {
    const timed = await signedBy({ ...asking(services), tsaUrl: services.url });
    expect(JSON.parse(timed).verificationMaterial.timestampVerificationData.rfc3161Timestamps).toHaveLength(
      1,
    );
    expect(await code(timed)).toBe("no error");
    const root = JSON.parse(world.trustedRoot);
    root.timestampAuthorities = JSON.parse((await keylessWorld()).trustedRoot).timestampAuthorities;
    expect(await code(timed, { trustedRoot: written(JSON.stringify(root)) })).toBe("BUNDLE_INVALID");
  });

  it("one bit of a weight: different", async () => {
    const copy = join(work, "flipped");
    cpSync(folder, copy, { recursive: true });
    const weights = readFileSync(join(copy, "model.safetensors"));
    weights[weights.length - 1]! ^= 1;
    writeFileSync(join(copy, "model.safetensors"), weights);
    const report = await met(copy);
    expect(report).toMatchObject({
      verdict: "different",
      rungs: [{ rung: "cover", verdict: "different" }, {}],
    });
    expect(metricsWith(report, "cover", "files").differences).toContain(
      "model.safetensors differs from the signed file",
    );
  });

  it("another model, rightly signed: different", async () => {
    const other = join(work, "sharded");
    await convert(golden("sharded"), other, { ...QUICK, to: "hf" });
    expect(await met(other)).toMatchObject({ verdict: "different" });
  });

  it("another identity, and one that a pattern would let pass; another issuer", async () => {
    expect(await code(text, { sigstoreIdentity: "https://github.com/us/models" })).toBe("BUNDLE_UNTRUSTED");
    expect(await code(text, { sigstoreIdentity: ".*" })).toBe("BUNDLE_UNTRUSTED");
    expect(await code(text, { sigstoreIssuer: "https://accounts.test" })).toBe("BUNDLE_UNTRUSTED");
    const stranger = await signedBy(asking(services, { ...who, identity: "https://elsewhere.test" }));
    expect(await code(stranger)).toBe("BUNDLE_UNTRUSTED");
  });

  it("other authorities and logs, a certificate in no log, one that had run out when it signed", async () => {
    const { trustedRoot: stranger } = await keylessWorld();
    expect(await code(text, { trustedRoot: written(stranger) })).toBe("BUNDLE_UNTRUSTED");
    const mixed = (name: string) => {
      const root = JSON.parse(world.trustedRoot);
      root[name] = JSON.parse(stranger)[name];
      return written(JSON.stringify(root));
    };
    expect(await code(text, { trustedRoot: mixed("certificateAuthorities") })).toBe("BUNDLE_UNTRUSTED");
    expect(await code(text, { trustedRoot: mixed("ctlogs") })).toBe("BUNDLE_UNTRUSTED");
    expect(await code(text, { trustedRoot: mixed("tlogs") })).toBe("BUNDLE_INVALID");
    expect(await code(await oddly({ unlogged: true }))).toBe("BUNDLE_UNTRUSTED");
    expect(await code(await oddly({ loggedAt: new Date(Date.now() + 7_200_000) }))).toBe("BUNDLE_UNTRUSTED");
  });

  it("edited: statement, signature, log entry", async () => {
    const other = JSON.parse(await signedBy(asking(services)));
    const forged = JSON.parse(payload.toString());
    forged.predicate.resources[0].digest = "0".repeat(64);
    const changes: ((edited: typeof parts) => void)[] = [
      ({ dsseEnvelope }) => {
        dsseEnvelope.payload = Buffer.from(JSON.stringify(forged)).toString("base64");
      },
      ({ dsseEnvelope }) => {
        dsseEnvelope.signatures[0].sig = other.dsseEnvelope.signatures[0].sig;
      },
      ({ verificationMaterial }) => {
        verificationMaterial.tlogEntries = [];
      },
      ({ verificationMaterial }) => {
        verificationMaterial.tlogEntries[0].integratedTime = "1";
      },
      ({ verificationMaterial }) => {
        verificationMaterial.tlogEntries = other.verificationMaterial.tlogEntries;
      },
    ];
    for (const [index, change] of changes.entries()) {
      const edited = JSON.parse(text);
      change(edited);
      expect(await code(JSON.stringify(edited)), String(index)).toMatch(/^BUNDLE_/);
    }
  });

  it("a key where authorities are named, and a root that is none", async () => {
    expect(await codeOf(() => met(folder, { publicKey: bundle }))).toBe("USAGE");
    expect(await code(text, { trustedRoot: written("{") })).toBe("USAGE");
    expect(await code(text, { trustedRoot: written("{}") })).toBe("BUNDLE_UNTRUSTED");
  });
});

describe("what cannot be signed is refused before anything is written", () => {
  const spent = tokenOf(who, { exp: 1_700_000_000 });
  const given = { sign: "sigstore", bundle: `${work}/x.sig` };
  it.each<[string, string, Partial<ConvertOptions>]>([
    ["no bundle to write", "USAGE", { sign: "sigstore" }],
    ["nobody vouches", "IDENTITY_MISSING", given],
    ["a token that ran out", "ACCESS_REFUSED", { ...given, identityToken: spent }],
    ["a token of nobody", "USAGE", { ...given, identityToken: tokenOf(who, { sub: "" }) }],
    ["an address not verified", "USAGE", { ...given, identityToken: tokenOf(who, { email: "a@b.test" }) }],
    ["a file that holds no token", "USAGE", { ...given, identityToken: bundle }],
    ["neither token nor file", "NOT_FOUND", { ...given, identityToken: `${spent.slice(0, 40)}*` }],
    ["a name too long for a file", "NOT_FOUND", { ...given, identityToken: "x".repeat(9000) }],
    ["an authority without its log", "USAGE", { ...given, fulcioUrl: services.url }],
    ["a log without its authority", "USAGE", { ...given, rekorUrl: services.url }],
    ["an address that is none", "USAGE", { ...given, fulcioUrl: "log.test", rekorUrl: services.url }],
    ["unproven", "USAGE", { ...given, identityToken: tokenOf(who), verify: "off" }],
    ["a token and a key", "USAGE", { sign: bundle, bundle: `${work}/x.sig`, identityToken: tokenOf(who) }],
    ["a token and nothing to sign", "USAGE", { identityToken: tokenOf(who) }],
  ])("%s: %s", async (_, wanted, more) => {
    const error = await errorOf(() => convert(golden("tiny"), `${work}/x`, { ...QUICK, to: "hf", ...more }));
    expect(error.code).toBe(wanted);
    expect(existsSync(`${work}/x`) || existsSync(`${work}/x.partial`)).toBe(false);
    const token = more.identityToken;
    if (token !== undefined && token !== bundle)
      expect(JSON.stringify([error.message, error.at])).not.toContain(token);
  });

  it("a token may lie in a file, with white space around it", async () => {
    const identityToken = written(`\n${tokenOf(who)} \n`);
    expect(await code(await signedBy({ ...asking(services), identityToken }))).toBe("no error");
  });
});

describe("a service that fails leaves no destination, and --resume goes on", () => {
  const json = (statusCode: number, message: string) => ({
    statusCode,
    response: JSON.stringify({ message }),
    contentType: "application/json",
  });
  /** An entry as the log gave it when bundles were older. */
  const entry = {
    body: Buffer.from('{"kind":"dsse","apiVersion":"0.0.1"}').toString("base64"),
    integratedTime: 1_700_000_000,
    logID: "00".repeat(32),
    logIndex: 1,
    verification: { signedEntryTimestamp: "AAAA" },
  };
  const unproved = { statusCode: 201, response: JSON.stringify({ ab: entry }) };
  const token = tokenOf(who);
  it.each<[string, string, RegExp, NonNullable<Oddity["answer"]>]>([
    [
      "the authority refuses, and repeats what it was given",
      "ACCESS_REFUSED",
      /^the certificate authority refuses the identity token: \(400\) unknown issuer in \(the token\)$/,
      () => json(400, `unknown issuer in ${token}`),
    ],
    [
      "the authority is down",
      "NETWORK",
      /^the certificate authority answers \(503\) busy$/,
      () => json(503, "busy"),
    ],
    [
      "the log refuses",
      "NETWORK",
      /^the signature log answers \(400\) no$/,
      (path) => (path.includes("/log/") ? json(400, "no") : undefined),
    ],
    [
      "the log answers without a proof",
      "NETWORK",
      /^the answers of the services are not a valid bundle: invalid bundle$/,
      (path) => (path.includes("/log/") ? unproved : undefined),
    ],
    [
      "the authority answers without a certificate",
      "NETWORK",
      /^the certificate authority cannot be reached|^what the services answer/,
      () => json(200, "hello"),
    ],
  ])("%s", async (name, wanted, message, answer) => {
    const [dst, sig] = [join(work, name), join(work, `${name}.sig`)];
    const odd = { ...options, ...asking(await world.serve({ answer })), identityToken: token, bundle: sig };
    const error = await errorOf(() => convert(golden("tiny"), dst, odd));
    expect([error.code, error.exit]).toEqual([wanted, 4]);
    expect(error.message).toMatch(message);
    expect(error.next).toMatch(/`resume`/);
    expect([existsSync(dst), existsSync(sig), existsSync(`${dst}.partial`)]).toEqual([false, false, true]);
    if (wanted !== "ACCESS_REFUSED") return;
    const again = { ...options, ...asking(services), bundle: sig, resume: true };
    expect((await convert(golden("tiny"), dst, again)).bytesWritten).toBeGreaterThan(0);
    expect(existsSync(`${dst}.partial`)).toBe(false);
    expect(await met(dst, { bundle: sig })).toMatchObject({ verdict: "same" });
  });

  it("nobody listens there", async () => {
    const closed = "http://127.0.0.1:9";
    const signer = await keylessSigner(
      { identityToken: token, fulcioUrl: closed, rekorUrl: closed },
      undefined,
    );
    const error = await errorOf(() => signer(payload));
    expect([error.code, error.message]).toEqual([
      "NETWORK",
      expect.stringMatching(/^the certificate authority cannot be reached: .*ECONNREFUSED/),
    ]);
  });

  it("who is told to stop does not wait for a service that is silent", async () => {
    const stop = new AbortController();
    const silent = await world.serve({ answer: () => "silence" });
    const signing = (await keylessSigner(asking(silent), stop.signal))(payload);
    stop.abort();
    expect(await codeOf(() => signing)).toBe("INTERRUPTED");
  });
});
