/**
 * Signing without a key. An identity token names who signs. An authority (Fulcio) certifies a key that is used for one
 * signature, and a log (Rekor) records the time. Signing needs a network; `sigstore-bundle.ts` checks the bundle offline.
 * The token is a secret: no error and no report contains it.
 */
import { readFile } from "node:fs/promises";
import type { BundleWithDsseEnvelope } from "@sigstore/bundle";
import { IsologitError, systemError } from "../core/errors.ts";
import { isOffline } from "../hub/settings.ts";
import { raceAbort } from "../io/retry.ts";
import type { KeylessOptions } from "./options.ts";
import type { BundleSigner } from "./sigstore-bundle.ts";
import { PAYLOAD_TYPE } from "./statement.ts";

/** The value of `sign` that signs without a key. */
export const KEYLESS = "sigstore";

const KEYLESS_OPTIONS = Object.keys({
  identityToken: true,
  fulcioUrl: true,
  rekorUrl: true,
  tsaUrl: true,
} satisfies Record<keyof KeylessOptions, true>) as (keyof KeylessOptions)[]; // the type checks that each option is here

/** The public instance of Sigstore. Its log is public and is never deleted. */
const PUBLIC = { fulcioUrl: "https://fulcio.sigstore.dev", rekorUrl: "https://rekor.sigstore.dev" };
/** Timeout and retries of each request to a service. */
const REQUEST_LIMITS = { timeout: 20_000, retry: { retries: 2, minTimeout: 250, factor: 4 } };
/** Fulcio's certificate extension with the issuer of the identity. */
const ISSUER = "1.3.6.1.4.1.57264.1.8";
const LATER = { next: "the written files stay: run the same command again with `resume`" };

type Token = () => Promise<string>;

/**
 * A signer that uses an identity token of the options or of the environment. Faults that are known before there is a
 * payload are errors now. The token of a GitHub runner is requested at signing time, because it expires after minutes.
 *
 * @throws IDENTITY_MISSING, OFFLINE, USAGE, NOT_FOUND; ACCESS_REFUSED: the token has expired. The signer throws
 *   ACCESS_REFUSED and NETWORK
 */
export async function keylessSigner(
  { identityToken, tsaUrl, ...named }: KeylessOptions,
  signal: AbortSignal | undefined,
): Promise<BundleSigner> {
  if (isOffline(process.env)) {
    const next = { next: "unset HF_HUB_OFFLINE, or sign with a key" };
    throw new IsologitError(
      "OFFLINE",
      "HF_HUB_OFFLINE is set, and signing without a key needs the network",
      {},
      next,
    );
  }
  // a private authority together with the public log would publish names that should stay private
  if ((named.fulcioUrl === undefined) !== (named.rekorUrl === undefined))
    throw new IsologitError(
      "USAGE",
      "only one of `fulcioUrl` and `rekorUrl` was given, expected both or neither",
    );
  const fulcioBaseURL = addressOf("fulcioUrl", named.fulcioUrl ?? PUBLIC.fulcioUrl);
  const rekorBaseURL = addressOf("rekorUrl", named.rekorUrl ?? PUBLIC.rekorUrl);
  const tsaBaseURL = tsaUrl === undefined ? undefined : addressOf("tsaUrl", tsaUrl);
  const requestToken = await tokenSource(identityToken);

  return async (payload) => {
    const { DSSEBundleBuilder, FulcioSigner, RekorWitness, TSAWitness } = await import("@sigstore/sign");
    const token = await raceAbort(requestToken(), signal);
    const identityProvider = { getToken: () => Promise.resolve(token) };
    const builder = new DSSEBundleBuilder({
      signer: new FulcioSigner({ ...REQUEST_LIMITS, fulcioBaseURL, identityProvider }),
      witnesses: [
        // if a lost answer has created the entry already, it is fetched
        new RekorWitness({ ...REQUEST_LIMITS, rekorBaseURL, entryType: "dsse", fetchOnConflict: true }),
        ...(tsaBaseURL === undefined ? [] : [new TSAWitness({ ...REQUEST_LIMITS, tsaBaseURL })]),
      ],
    });
    const bundle = builder.create({ data: payload, type: PAYLOAD_TYPE }).then(textOf);
    const signed = bundle.catch((error) => Promise.reject(serviceError(error, token)));
    return await raceAbort(signed, signal);
  };
}

/** @throws USAGE: one of these options was given without `sign` sigstore */
export function refuseKeyless(options: KeylessOptions): void {
  if (KEYLESS_OPTIONS.every((name) => options[name] === undefined)) return;
  const names = KEYLESS_OPTIONS.map((name) => `\`${name}\``).join(", ");
  throw new IsologitError("USAGE", `these options need \`sign\` ${KEYLESS}: ${names}`);
}

/** The address without a slash at its end, because the library appends paths. */
function addressOf(option: string, address: string): string {
  if (/^https?:\/\//.test(address) && URL.canParse(address)) return address.replace(/\/+$/, "");
  throw new IsologitError("USAGE", `\`${option}\` is ${JSON.stringify(address)}, expected an http address`);
}

/** @param given a token, or the path of a file that holds a token */
async function tokenSource(given: string | undefined): Promise<Token> {
  const { SIGSTORE_ID_TOKEN, ACTIONS_ID_TOKEN_REQUEST_URL, ACTIONS_ID_TOKEN_REQUEST_TOKEN } = process.env;
  if (given !== undefined || SIGSTORE_ID_TOKEN) {
    const token = await tokenIn(given ?? SIGSTORE_ID_TOKEN!);
    requireValid(token);
    return async () => requireValid(token);
  }
  if (ACTIONS_ID_TOKEN_REQUEST_URL && ACTIONS_ID_TOKEN_REQUEST_TOKEN) {
    return async () => {
      const { CIContextProvider } = await import("@sigstore/sign");
      const token: unknown = await new CIContextProvider().getToken().catch(() => undefined);
      // GitHub refuses a token by an answer without a token
      if (typeof token === "string") return requireValid(token);
      throw new IsologitError("NETWORK", "GitHub gave no identity token", {}, LATER);
    };
  }
  throw new IsologitError("IDENTITY_MISSING", "no identity token was found for signing without a key");
}

/** Three parts of base64url; the first part is JSON. */
const TOKEN = /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/;

async function tokenIn(given: string): Promise<string> {
  if (TOKEN.test(given.trim())) return given.trim();
  // the path is not in the error: it may be a part of a secret
  const text = await readFile(given, "utf8").catch((cause) => {
    const known = systemError(cause, {});
    const next = { next: "pass the token, or the path of a file that holds it" };
    if (!(known instanceof IsologitError) || known.code === "NOT_FOUND" || cause.code === "ENAMETOOLONG")
      throw new IsologitError("NOT_FOUND", "the identity is neither a token nor a file", {}, next);
    throw known;
  });
  return text.trim();
}

interface Claims {
  readonly sub?: unknown;
  readonly email?: unknown;
  readonly email_verified?: unknown;
  /** seconds since 1970 */
  readonly exp?: unknown;
}

/** Returns the token if it names an identity and has not expired. The authority checks its signature. */
function requireValid(token: string): string {
  const { sub, email, email_verified: verified, exp } = claimsOf(token);
  if (!(email ? verified : typeof sub === "string" && sub !== ""))
    throw new IsologitError(
      "USAGE",
      "the identity token has no subject, or its e-mail address is not verified",
    );
  if (typeof exp !== "number" || exp * 1000 > Date.now()) return token;
  const when = new Date(exp * 1000).toISOString();
  const next = { next: "get a new token; if files were written already, continue with `resume`" };
  throw new IsologitError("ACCESS_REFUSED", `the identity token expired at ${when}`, {}, next);
}

function claimsOf(token: string): Claims {
  try {
    if (!TOKEN.test(token)) throw new Error("it has another form");
    const claims: unknown = JSON.parse(Buffer.from(token.split(".")[1]!, "base64url").toString());
    if (typeof claims === "object" && claims !== null) return claims;
  } catch {} // no cause is kept: the message of a parser quotes the token
  throw new IsologitError("USAGE", "the identity token is not a JSON web token");
}

/** The text of a bundle and the identity in its certificate. The bundle is parsed again, because a service may answer anything. */
async function textOf(bundle: BundleWithDsseEnvelope): ReturnType<BundleSigner> {
  const [{ bundleFromJSON, bundleToJSON }, { X509Certificate }] = await Promise.all([
    import("@sigstore/bundle"),
    import("@sigstore/core"),
  ]);
  const json = bundleToJSON(bundle);
  bundleFromJSON(json);
  const { content } = bundle.verificationMaterial;
  if (content.$case !== "certificate") throw new Error("the bundle has no certificate");
  const certificate = X509Certificate.parse(Buffer.from(content.certificate.rawBytes));
  const signedBy = certificate.subjectAltName;
  const issuer = certificate.extension(ISSUER)?.valueObj.subs[0]?.value.toString();
  if (signedBy === undefined || issuer === undefined) throw new Error("the certificate has no identity");
  return { text: `${JSON.stringify(json)}\n`, signedBy, issuer };
}

const SERVICES: Readonly<Record<string, string>> = {
  CA_CREATE_SIGNING_CERTIFICATE_ERROR: "the certificate authority",
  TLOG_CREATE_ENTRY_ERROR: "the signature log",
  TLOG_FETCH_ENTRY_ERROR: "the signature log",
  TSA_CREATE_TIMESTAMP_ERROR: "the timestamp authority",
};
const REFUSED = [400, 401, 403];

/** Error for a failure of a service. No cause is kept, and the token is removed from the text: both may contain it. */
function serviceError(error: unknown, token: string): IsologitError {
  const { code, cause, message } = error as { code?: unknown; cause?: Partial<HttpError>; message?: unknown };
  const text = String(cause?.message ?? message).replaceAll(token, "(the token)");
  const service = SERVICES[String(code)];
  if (service === undefined)
    return new IsologitError(
      "NETWORK",
      `the answers of the services are not a valid bundle: ${text}`,
      {},
      LATER,
    );
  const status = cause?.statusCode;
  if (status === undefined)
    return new IsologitError("NETWORK", `${service} cannot be reached: ${text}`, {}, LATER);
  if (code !== "CA_CREATE_SIGNING_CERTIFICATE_ERROR" || !REFUSED.includes(status))
    return new IsologitError("NETWORK", `${service} answers ${text}`, {}, LATER);
  const next =
    "check that the authority accepts this issuer and that the audience of the token is sigstore; then continue with `resume`";
  return new IsologitError("ACCESS_REFUSED", `${service} refuses the identity token: ${text}`, {}, { next });
}

interface HttpError {
  readonly message: string;
  readonly statusCode: number;
}
