/**
 * Signing without a key. Someone vouches for who runs this (an identity token), an authority (Fulcio) certifies a key that
 * lives for this one signature, and a log (Rekor) says when it saw it. Only this needs a network: `bundle.ts` checks what
 * comes of it offline. The token is a secret: nothing that is thrown or reported holds it.
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

const KEYLESS_OPTIONS = [
  "identityToken",
  "fulcioUrl",
  "rekorUrl",
  "tsaUrl",
] as const satisfies readonly (keyof KeylessOptions)[];

/** Where the public instance is asked; what it is told stays public for good. */
const PUBLIC = { fulcioUrl: "https://fulcio.sigstore.dev", rekorUrl: "https://rekor.sigstore.dev" };
/** Of each question to a service: how long it may be silent, and how often it is asked again. */
const PATIENCE = { timeout: 20_000, retry: { retries: 2, minTimeout: 250, factor: 4 } };
/** Fulcio's extension for who vouched for the identity. */
const ISSUER = "1.3.6.1.4.1.57264.1.8";
const LATER = { next: "what was written is kept: run the same command again with `resume`" };

type Token = () => Promise<string>;

/**
 * A signer for whom the environment, or a token, vouches. What can be known before there is anything to sign is refused
 * now; the identity of GitHub's runner is asked for when it is needed, for it lives for minutes.
 *
 * @throws IDENTITY_MISSING, OFFLINE, USAGE, NOT_FOUND; ACCESS_REFUSED: the token has run out. In signing ACCESS_REFUSED
 *   and NETWORK
 */
export async function keylessSigner(
  { identityToken, tsaUrl, ...named }: KeylessOptions,
  signal: AbortSignal | undefined,
): Promise<BundleSigner> {
  if (isOffline(process.env)) {
    const next = { next: "unset HF_HUB_OFFLINE, or sign with a key" };
    throw new IsologitError(
      "OFFLINE",
      "HF_HUB_OFFLINE is set, and signing without a key asks services",
      {},
      next,
    );
  }
  // an authority of one's own beside the public log would publish what was meant to stay inside
  if ((named.fulcioUrl === undefined) !== (named.rekorUrl === undefined))
    throw new IsologitError("USAGE", "`fulcioUrl` and `rekorUrl` belong together, and only one was given");
  const fulcioBaseURL = addressOf("fulcioUrl", named.fulcioUrl ?? PUBLIC.fulcioUrl);
  const rekorBaseURL = addressOf("rekorUrl", named.rekorUrl ?? PUBLIC.rekorUrl);
  const tsaBaseURL = tsaUrl === undefined ? undefined : addressOf("tsaUrl", tsaUrl);
  const askToken = await tokenSource(identityToken);

  return async (payload) => {
    const { DSSEBundleBuilder, FulcioSigner, RekorWitness, TSAWitness } = await import("@sigstore/sign");
    const token = await raceAbort(askToken(), signal);
    const identityProvider = { getToken: () => Promise.resolve(token) };
    const builder = new DSSEBundleBuilder({
      signer: new FulcioSigner({ ...PATIENCE, fulcioBaseURL, identityProvider }),
      witnesses: [
        // an entry that a lost answer had made already is fetched
        new RekorWitness({ ...PATIENCE, rekorBaseURL, entryType: "dsse", fetchOnConflict: true }),
        ...(tsaBaseURL === undefined ? [] : [new TSAWitness({ ...PATIENCE, tsaBaseURL })]),
      ],
    });
    const made = builder.create({ data: payload, type: PAYLOAD_TYPE }).then(textOf);
    const ours = made.catch((error) => Promise.reject(asOurs(error, token)));
    return await raceAbort(ours, signal);
  };
}

/** @throws USAGE: of these options one was given, and nothing asks for them */
export function refuseKeyless(options: KeylessOptions): void {
  if (KEYLESS_OPTIONS.every((name) => options[name] === undefined)) return;
  const names = KEYLESS_OPTIONS.map((name) => `\`${name}\``).join(", ");
  throw new IsologitError("USAGE", `these options need \`sign\` ${KEYLESS}: ${names}`);
}

/** The library appends paths to it. */
function addressOf(option: string, given: string): string {
  if (/^https?:\/\//.test(given) && URL.canParse(given)) return given.replace(/\/+$/, "");
  throw new IsologitError("USAGE", `\`${option}\` is ${JSON.stringify(given)}, expected an http address`);
}

/** @param given a token, or the path of a file that holds one */
async function tokenSource(given: string | undefined): Promise<Token> {
  const { SIGSTORE_ID_TOKEN, ACTIONS_ID_TOKEN_REQUEST_URL, ACTIONS_ID_TOKEN_REQUEST_TOKEN } = process.env;
  if (given !== undefined || SIGSTORE_ID_TOKEN) {
    const token = await tokenIn(given ?? SIGSTORE_ID_TOKEN!);
    checked(token);
    return async () => checked(token);
  }
  if (ACTIONS_ID_TOKEN_REQUEST_URL && ACTIONS_ID_TOKEN_REQUEST_TOKEN) {
    return async () => {
      const { CIContextProvider } = await import("@sigstore/sign");
      const token: unknown = await new CIContextProvider().getToken().catch(() => undefined);
      // GitHub's refusals come as answers without a token
      if (typeof token === "string") return checked(token);
      throw new IsologitError("NETWORK", "GitHub gave no identity token", {}, LATER);
    };
  }
  throw new IsologitError("IDENTITY_MISSING", "nobody here vouches for who signs");
}

/** Three parts of base64url, the first of which is JSON. */
const TOKEN = /^eyJ[\w-]+\.[\w-]+\.[\w-]+$/;

async function tokenIn(given: string): Promise<string> {
  if (TOKEN.test(given.trim())) return given.trim();
  // never named: what is no path may be most of a secret
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

/** The token, if it names someone and has not run out. Whether it is genuine is the authority's to say. */
function checked(token: string): string {
  const { sub, email, email_verified: verified, exp } = claimsOf(token);
  if (!(email ? verified : typeof sub === "string" && sub !== ""))
    throw new IsologitError("USAGE", "the identity token names nobody, or an address that is not verified");
  if (typeof exp !== "number" || exp * 1000 > Date.now()) return token;
  const when = new Date(exp * 1000).toISOString();
  const next = { next: "get a new one; where files were written already, go on with `resume`" };
  throw new IsologitError("ACCESS_REFUSED", `the identity token ran out at ${when}`, {}, next);
}

function claimsOf(token: string): Claims {
  try {
    if (!TOKEN.test(token)) throw new Error("it has another form");
    const claims: unknown = JSON.parse(Buffer.from(token.split(".")[1]!, "base64url").toString());
    if (typeof claims === "object" && claims !== null) return claims;
  } catch {} // the same refusal, and no cause: a parser's words quote what it read
  throw new IsologitError("USAGE", "what was given as identity token is none: it is no JSON web token");
}

/** The bundle's text, once it is known to be whole, since a service may answer anything; and whom its certificate names. */
async function textOf(bundle: BundleWithDsseEnvelope): ReturnType<BundleSigner> {
  const [{ bundleFromJSON, bundleToJSON }, { X509Certificate }] = await Promise.all([
    import("@sigstore/bundle"),
    import("@sigstore/core"),
  ]);
  const json = bundleToJSON(bundle);
  bundleFromJSON(json);
  const { content } = bundle.verificationMaterial;
  if (content.$case !== "certificate") throw new Error("there is no certificate in it");
  const certificate = X509Certificate.parse(Buffer.from(content.certificate.rawBytes));
  const signedBy = certificate.subjectAltName;
  const issuer = certificate.extension(ISSUER)?.valueObj.subs[0]?.value.toString();
  if (signedBy === undefined || issuer === undefined) throw new Error("its certificate names nobody");
  return { text: `${JSON.stringify(json)}\n`, signedBy, issuer };
}

const SERVICES: Readonly<Record<string, string>> = {
  CA_CREATE_SIGNING_CERTIFICATE_ERROR: "the certificate authority",
  TLOG_CREATE_ENTRY_ERROR: "the signature log",
  TLOG_FETCH_ENTRY_ERROR: "the signature log",
  TSA_CREATE_TIMESTAMP_ERROR: "the timestamp authority",
};
const REFUSED = [400, 401, 403];

/** What the library throws. No cause is kept: it may hold the token, as what a service says may. */
function asOurs(error: unknown, token: string): IsologitError {
  const { code, cause, message } = error as { code?: unknown; cause?: Partial<HttpError>; message?: unknown };
  const said = String(cause?.message ?? message).replaceAll(token, "(the token)");
  const service = SERVICES[String(code)];
  if (service === undefined)
    return new IsologitError("NETWORK", `what the services answer makes no bundle: ${said}`, {}, LATER);
  const status = cause?.statusCode;
  if (status === undefined)
    return new IsologitError("NETWORK", `${service} cannot be reached: ${said}`, {}, LATER);
  if (code !== "CA_CREATE_SIGNING_CERTIFICATE_ERROR" || !REFUSED.includes(status))
    return new IsologitError("NETWORK", `${service} answers ${said}`, {}, LATER);
  const next =
    "see that it accepts this issuer, and that the token's audience is sigstore; then go on with `resume`";
  return new IsologitError("ACCESS_REFUSED", `${service} refuses the identity token: ${said}`, {}, { next });
}

interface HttpError {
  readonly message: string;
  readonly statusCode: number;
}
