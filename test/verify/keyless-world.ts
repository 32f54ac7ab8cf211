/**
 * A Sigstore of our own: a certificate authority, a certificate log and a signature log, of one key each, and whoever
 * signs with a certificate of theirs. What real instances need a network and an identity provider for, from RFC 5280
 * (certificates), RFC 6962 (logs) and the forms of Rekor's entries.
 */
import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto";

const SHA256_WITH_ECDSA = "1.2.840.10045.4.3.2";
const NAME = "2.5.4.3";
const KEY_ID = "2.5.29.14";
const KEY_USAGE = "2.5.29.15";
const ALTERNATIVE_NAME = "2.5.29.17";
const CONSTRAINTS = "2.5.29.19";
const AUTHORITY = "2.5.29.35";
const ISSUER = "1.3.6.1.4.1.57264.1.8";
const LOGGED = "1.3.6.1.4.1.11129.2.4.2";
const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const LOG_URL = "https://log.test";

const digest = (...parts: readonly Uint8Array[]): Buffer => {
  const hash = createHash("sha256");
  for (const part of parts) hash.update(part);
  return hash.digest();
};

/** A DER element: tag, length, content. */
function der(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  const size = content.length;
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff];
  return Buffer.concat([Buffer.from([tag, ...length]), content]);
}
const sequence = (...parts: readonly Uint8Array[]) => der(0x30, ...parts);
const octets = (...parts: readonly Uint8Array[]) => der(0x04, ...parts);
const bits = (unused: number, content: Uint8Array) => der(0x03, Buffer.from([unused]), content);
const text = (value: string) => der(0x0c, Buffer.from(value));

function oid(dotted: string): Buffer {
  const [a, b, ...rest] = dotted.split(".").map(Number);
  const base128 = (value: number): number[] =>
    value < 0x80 ? [value] : [...base128(value >> 7).map((digit) => digit | 0x80), value & 0x7f];
  return der(0x06, Buffer.from([a! * 40 + b!, ...rest.flatMap(base128)]));
}

const time = (when: Date) =>
  der(0x18, Buffer.from(`${when.toISOString().replace(/[-:T]/g, "").slice(0, 14)}Z`));
const nameOf = (value: string) => sequence(der(0x31, sequence(oid(NAME), text(value))));
const extension = (id: string, value: Uint8Array) => sequence(oid(id), octets(value));
const spki = (key: KeyObject) => key.export({ format: "der", type: "spki" });

interface Pair {
  readonly privateKey: KeyObject;
  readonly publicKey: KeyObject;
}
const newPair = (): Pair => generateKeyPairSync("ec", { namedCurve: "P-256" });
const idOf = ({ publicKey }: Pair): Buffer => digest(spki(publicKey));

interface Asked {
  readonly issuer: string;
  readonly subject: string;
  readonly key: KeyObject;
  readonly from: Date;
  readonly until: Date;
  readonly extensions: readonly Buffer[];
}

/** What a certificate says, before it is signed. */
const toBeSigned = ({ issuer, subject, key, from, until, extensions }: Asked): Buffer =>
  sequence(
    der(0xa0, der(0x02, Buffer.from([2]))),
    der(0x02, Buffer.from([1])),
    sequence(oid(SHA256_WITH_ECDSA)),
    nameOf(issuer),
    sequence(time(from), time(until)),
    nameOf(subject),
    spki(key),
    der(0xa3, sequence(...extensions)),
  );

const certificate = (said: Buffer, by: Pair): Buffer =>
  sequence(said, sequence(oid(SHA256_WITH_ECDSA)), bits(0, sign("sha256", said, by.privateKey)));

function uint(value: number, bytes: number): Buffer {
  const buffer = Buffer.alloc(bytes);
  buffer.writeUIntBE(value, Math.max(0, bytes - 6), Math.min(bytes, 6));
  return buffer;
}

export interface Signing {
  readonly identity: string;
  readonly issuer: string;
  /** when the log says that it saw the signature; default: now */
  readonly loggedAt?: Date;
  /** leave the certificate out of the certificate log */
  readonly unlogged?: boolean;
}

export class KeylessWorld {
  readonly #authority = newPair();
  readonly #certificates = newPair();
  readonly #signatures = newPair();
  readonly #from = new Date(Date.now() - 3_600_000);
  readonly #until = new Date(Date.now() + 3_600_000);

  /** The text of its `trusted_root.json`. */
  trustedRoot(): string {
    const validFor = { start: this.#from.toISOString() };
    const log = (pair: Pair) => ({
      baseUrl: LOG_URL,
      hashAlgorithm: "SHA2_256",
      publicKey: {
        rawBytes: spki(pair.publicKey).toString("base64"),
        keyDetails: "PKIX_ECDSA_P256_SHA_256",
        validFor,
      },
      logId: { keyId: idOf(pair).toString("base64") },
    });
    return JSON.stringify({
      mediaType: "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
      tlogs: [log(this.#signatures)],
      ctlogs: [log(this.#certificates)],
      certificateAuthorities: [
        {
          uri: "https://ca.test",
          certChain: { certificates: [{ rawBytes: this.#root().toString("base64") }] },
          validFor,
        },
      ],
      timestampAuthorities: [],
    });
  }

  /** The text of a bundle over a statement. */
  bundle(payload: Buffer, { identity, issuer, loggedAt = new Date(), unlogged = false }: Signing): string {
    const signer = newPair();
    const leaf = this.#leaf(signer.publicKey, identity, issuer, unlogged);
    const said = Buffer.from(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${payload.length} `);
    const signature = sign("sha256", Buffer.concat([said, payload]), signer.privateKey).toString("base64");
    return JSON.stringify({
      mediaType: "application/vnd.dev.sigstore.bundle.v0.3+json",
      verificationMaterial: {
        certificate: { rawBytes: leaf.toString("base64") },
        tlogEntries: [this.#entry(payload, signature, leaf, loggedAt)],
        timestampVerificationData: {},
      },
      dsseEnvelope: {
        payload: payload.toString("base64"),
        payloadType: PAYLOAD_TYPE,
        signatures: [{ sig: signature, keyid: "" }],
      },
    });
  }

  #root(): Buffer {
    const asked: Asked = {
      issuer: "our root",
      subject: "our root",
      key: this.#authority.publicKey,
      from: this.#from,
      until: this.#until,
      extensions: [
        extension(KEY_ID, octets(idOf(this.#authority).subarray(0, 20))),
        extension(KEY_USAGE, bits(1, Buffer.from([0x06]))), // signs certificates and lists of them
        extension(CONSTRAINTS, sequence(der(0x01, Buffer.from([0xff])))),
      ],
    };
    return certificate(toBeSigned(asked), this.#authority);
  }

  #leaf(key: KeyObject, identity: string, issuer: string, unlogged: boolean): Buffer {
    const extensions = [
      extension(KEY_USAGE, bits(7, Buffer.from([0x80]))), // signs data
      extension(AUTHORITY, sequence(der(0x80, idOf(this.#authority).subarray(0, 20)))),
      extension(
        ALTERNATIVE_NAME,
        sequence(der(identity.includes("://") ? 0x86 : 0x81, Buffer.from(identity))),
      ),
      extension(ISSUER, text(issuer)),
    ];
    const asked = { issuer: "our root", subject: "", key, from: this.#from, until: this.#until, extensions };
    if (unlogged) return certificate(toBeSigned(asked), this.#authority);
    const logged = extension(LOGGED, octets(this.#timestampOf(toBeSigned(asked))));
    return certificate(toBeSigned({ ...asked, extensions: [...extensions, logged] }), this.#authority);
  }

  /** The certificate log's promise, over the certificate as it is without that promise. */
  #timestampOf(said: Buffer): Buffer {
    const when = uint(Date.now(), 8);
    const entry = Buffer.concat([idOf(this.#authority), uint(said.length, 3), said]);
    const promised = Buffer.concat([Buffer.from([0, 0]), when, uint(1, 2), entry, uint(0, 2)]);
    const signature = sign("sha256", promised, this.#certificates.privateKey);
    const timestamp = Buffer.concat([
      Buffer.from([0]),
      idOf(this.#certificates),
      when,
      uint(0, 2),
      Buffer.from([4, 3]), // SHA-256, ECDSA
      uint(signature.length, 2),
      signature,
    ]);
    const one = Buffer.concat([uint(timestamp.length, 2), timestamp]);
    return Buffer.concat([uint(one.length, 2), one]);
  }

  /** The only entry of the signature log, with its promise and the proof that it is in. */
  #entry(payload: Buffer, signature: string, leaf: Buffer, loggedAt: Date): object {
    const pem = `-----BEGIN CERTIFICATE-----\n${leaf.toString("base64")}\n-----END CERTIFICATE-----\n`;
    const body = Buffer.from(
      JSON.stringify({
        apiVersion: "0.0.1",
        kind: "dsse",
        spec: {
          payloadHash: { algorithm: "sha256", value: digest(payload).toString("hex") },
          signatures: [{ signature, verifier: Buffer.from(pem).toString("base64") }],
        },
      }),
    );
    const { privateKey } = this.#signatures;
    const id = idOf(this.#signatures);
    const seconds = Math.floor(loggedAt.getTime() / 1000);
    // keys in the order of their letters, as canonical JSON has them
    const promise = JSON.stringify({
      body: body.toString("base64"),
      integratedTime: seconds,
      logID: id.toString("hex"),
      logIndex: 0,
    });
    const rootHash = digest(Buffer.from([0]), body).toString("base64");
    const note = `log.test\n1\n${rootHash}\n`;
    const signedNote = Buffer.concat([id.subarray(0, 4), sign("sha256", Buffer.from(note), privateKey)]);
    return {
      logIndex: "0",
      logId: { keyId: id.toString("base64") },
      kindVersion: { kind: "dsse", version: "0.0.1" },
      integratedTime: String(seconds),
      inclusionPromise: {
        signedEntryTimestamp: sign("sha256", Buffer.from(promise), privateKey).toString("base64"),
      },
      inclusionProof: {
        logIndex: "0",
        rootHash,
        treeSize: "1",
        hashes: [],
        checkpoint: { envelope: `${note}\n\u2014 log.test ${signedNote.toString("base64")}\n` },
      },
      canonicalizedBody: body.toString("base64"),
    };
  }
}
