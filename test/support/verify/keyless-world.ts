/**
 * A Sigstore of our own, by the mocks of its authors behind HTTP: an authority with a log of certificates, a log of
 * signatures, a timestamp authority, and whoever vouches for those who sign, as GitHub's runners do. Real instances need
 * a network and an identity provider.
 */
import { createHash, generateKeyPairSync, X509Certificate } from "node:crypto";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import {
  fulcioHandler,
  initializeCA,
  initializeCTLog,
  initializeTLog,
  initializeTSA,
  tsaHandler,
} from "@sigstore/mock";
import { afterAll } from "vitest";

export interface Who {
  readonly identity: string;
  readonly issuer: string;
}

/** An identity token. Nobody checks its signature here. */
export function tokenOf({ identity, issuer }: Who, claims: object = {}): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const said = { iss: issuer, sub: identity, aud: "sigstore", exp: Math.ceil(Date.now() / 1000) + 600 };
  return `${part({ alg: "none" })}.${part({ ...said, ...claims })}.c2ln`;
}

interface Answer {
  readonly statusCode: number;
  readonly response: string | ArrayBufferView<ArrayBuffer>;
  readonly contentType?: string;
}

/** What is odd about the services of one address; the keys are the world's. */
export interface Oddity {
  /** certificates that are in no log */
  readonly unlogged?: boolean;
  /** when the log says that it saw a signature */
  readonly loggedAt?: Date;
  /** in place of the right answers */
  readonly answer?: (path: string) => Answer | "silence" | undefined;
}

export interface Services {
  readonly url: string;
  /** method and path of what was asked, in order */
  readonly asked: readonly string[];
}

export interface KeylessWorld {
  /** the text of its `trusted_root.json` */
  readonly trustedRoot: string;
  serve(oddity?: Oddity): Promise<Services>;
}

/** The secret with which a runner asks who it is. */
export const RUNNER_SECRET = "secret-of-the-runner";
/** Whom a runner is told to be. */
export const RUNNER: Who = { identity: "https://runner.test/workflow", issuer: "https://token.actions.test" };

const LOG = "https://log.test";
const digest = (text: string | Buffer) => createHash("sha256").update(text).digest("hex");
const base64 = (bytes: Uint8Array | ArrayBufferView<ArrayBuffer>) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64");

export async function keylessWorld(): Promise<KeylessWorld> {
  const pair = () => generateKeyPairSync("ec", { namedCurve: "P-256" });
  const [caKeys, ctKeys, logKeys, tsaKeys] = [pair(), pair(), pair(), pair()];
  const ctLog = await initializeCTLog(ctKeys);
  const [ca, secretCa] = [await initializeCA(caKeys, ctLog), await initializeCA(caKeys)];
  // whole seconds: the mock cuts the zeros off a fraction, and what is left may be no time that the verifier reads
  const clock = new Date();
  const tsa = await initializeTSA(tsaKeys, clock);
  const timestamp = (body: string): Promise<Answer> => {
    clock.setTime(1000 * Math.floor(Date.now() / 1000));
    return tsaHandler(tsa).fn(body);
  };
  const { publicKey: logKey } = await initializeTLog(LOG, logKeys);

  const validFor = { start: new Date(Date.now() - 3_600_000).toISOString() };
  const log = (key: Buffer) => ({
    baseUrl: LOG,
    hashAlgorithm: "SHA2_256",
    publicKey: { rawBytes: base64(key), keyDetails: "PKIX_ECDSA_P256_SHA_256", validFor },
    logId: { keyId: createHash("sha256").update(key).digest("base64") },
  });
  const authority = (...certificates: readonly ArrayBufferView<ArrayBuffer>[]) => ({
    uri: "https://authority.test",
    subject: { organization: "test", commonName: "test" },
    certChain: { certificates: certificates.map((bytes) => ({ rawBytes: base64(bytes) })) },
    validFor,
  });
  const trustedRoot = JSON.stringify({
    mediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
    tlogs: [log(logKey)],
    ctlogs: [log(ctLog.publicKey)],
    certificateAuthorities: [authority(ca.rootCertificate)],
    timestampAuthorities: [authority(tsa.intCertificate, tsa.rootCertificate)],
  });

  const serve = async ({ unlogged = false, loggedAt, answer }: Oddity = {}): Promise<Services> => {
    const tlog = await initializeTLog(LOG, logKeys, loggedAt);
    const enter = async (body: string): Promise<Answer> => {
      const response = JSON.stringify(await tlog.log(entered(JSON.parse(body))));
      return { statusCode: 201, response, contentType: "application/json" };
    };
    const posts: Readonly<Record<string, (body: string) => Promise<Answer>>> = {
      "/api/v2/signingCert": fulcioHandler(unlogged ? secretCa : ca).fn,
      "/api/v1/log/entries": enter,
      "/api/v1/timestamp": timestamp,
    };
    const asked: string[] = [];
    const server = createServer(async (request, response) => {
      // as a proxy it is told a whole address
      const { pathname, searchParams } = new URL(request.url!, "http://here");
      asked.push(`${request.method} ${pathname}`);
      const odd = answer?.(pathname);
      if (odd === "silence") return;
      const isRunner = request.headers.authorization === `Bearer ${RUNNER_SECRET}`;
      const token = isRunner && tokenOf(RUNNER, { aud: searchParams.get("audience") });
      const right =
        pathname === "/token"
          ? { statusCode: 200, response: JSON.stringify(token ? { value: token } : {}) }
          : await posts[pathname]?.(await bodyOf(request));
      const {
        statusCode,
        response: body,
        contentType,
      } = odd ?? right ?? { statusCode: 404, response: "nothing here" };
      response.writeHead(statusCode, { "content-type": contentType ?? "text/plain" });
      response.end(typeof body === "string" ? body : Buffer.from(base64(body), "base64"));
    });
    return { url: await listening(server), asked };
  };
  return { trustedRoot, serve };
}

/** What Rekor keeps of a proposed entry of kind `dsse`: hashes and signatures, not the envelope. The mock keeps all. */
function entered({ apiVersion, kind, spec }: ReturnType<typeof JSON.parse>): object {
  const { envelope, verifiers } = spec.proposedContent;
  const { payload, signatures } = JSON.parse(envelope);
  const certificate = new X509Certificate(Buffer.from(verifiers[0], "base64")).toString(); // lines of 64 letters
  return {
    apiVersion,
    kind,
    spec: {
      envelopeHash: { algorithm: "sha256", value: digest(envelope) },
      payloadHash: { algorithm: "sha256", value: digest(Buffer.from(payload, "base64")) },
      signatures: [{ signature: signatures[0].sig, verifier: Buffer.from(certificate).toString("base64") }],
    },
  };
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString();
}

async function listening(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}
