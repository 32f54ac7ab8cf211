/** A checkpoint's files against a bundle that signs them. Files as they lie there: nothing of the checkpoint is parsed. */
import { readFile, realpath, stat } from "node:fs/promises";
import { relative } from "node:path";
import { storeAt } from "../checkpoint/store.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import { isHubAddress } from "../io/address.ts";
import { fileStore } from "../io/file.ts";
import type { TrustOptions } from "./options.ts";
import { openBundle, readAuthorities, readCurveKey, type Trust } from "./sigstore-bundle.ts";
import { compareManifest, decodeStatement, type Manifest, manifestOf } from "./statement.ts";

/** What a report says of a bundle that was made, or whose signature was found good. */
export interface BundleReport {
  /** SHA-256 of the public key's PEM text, or the identity in the signing certificate */
  readonly signedBy: string;
  /** who vouched for the identity; null for a key */
  readonly issuer: string | null;
  /** how many files were signed */
  readonly files: number;
}

export interface SignedFiles {
  readonly report: BundleReport;
  readonly differences: readonly string[];
}

/**
 * @returns null where no bundle was asked for
 * @throws BUNDLE_INVALID, BUNDLE_UNTRUSTED, UNSUPPORTED; USAGE: nobody is named as trusted
 */
export async function signedFiles(
  address: string,
  options: TrustOptions & { readonly signal?: AbortSignal },
): Promise<SignedFiles | null> {
  const { bundle: file, signal } = options;
  const trust = await trustOf(options);
  if (file === undefined || trust === null) return null;
  const { payload, signedBy, issuer } = await openBundle(await bytesOf(file), trust, file);
  const signed = decodeStatement(payload, file);
  const found = await filesAt(address, [...signed.ignored, ...(await placeIn(address, file))], signal);
  return {
    report: { signedBy, issuer, files: signed.files.size },
    differences: compareManifest(signed, found),
  };
}

/** Every file of an address, hashed. */
export async function filesAt(
  address: string,
  ignored: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Manifest> {
  if (isHubAddress(address)) return await manifestOf(await storeAt(address, true), false, ignored, signal);
  const single = (await stat(address).catch((cause) => failed(cause, address))).isFile();
  // as it lies there: `storeAt` would unpack an archive that is packed as a whole
  return await manifestOf(await fileStore(address), single, ignored, signal);
}

/** Where a bundle lies inside the folder that it signs: there it is no part of it. */
async function placeIn(address: string, file: string): Promise<readonly string[]> {
  if (isHubAddress(address)) return [];
  const path = relative(await realpath(address), await realpath(file));
  return [path.replaceAll("\\", "/")];
}

/** @returns null where no bundle was asked for */
async function trustOf(options: TrustOptions): Promise<Trust | null> {
  const { bundle, publicKey, trustedRoot, sigstoreIdentity: identity, sigstoreIssuer: issuer } = options;
  const keyless = [trustedRoot, identity, issuer].filter((given) => given !== undefined).length;
  if (bundle === undefined) {
    if (keyless === 0) return null;
    throw new IsologitError("USAGE", "`trustedRoot`, `sigstoreIdentity` and `sigstoreIssuer` need `bundle`");
  }
  if (publicKey !== undefined && keyless === 0) {
    return { kind: "key", key: await readCurveKey(publicKey, "public") };
  }
  if (
    publicKey !== undefined ||
    trustedRoot === undefined ||
    identity === undefined ||
    issuer === undefined
  ) {
    const wanted = "`publicKey`, or `trustedRoot`, `sigstoreIdentity` and `sigstoreIssuer`";
    throw new IsologitError("USAGE", `\`bundle\` needs to know whom to trust: ${wanted}`);
  }
  const material = await readAuthorities(await bytesOf(trustedRoot), trustedRoot);
  return { kind: "authority", material, identity, issuer };
}

async function bytesOf(file: string): Promise<Uint8Array> {
  return readFile(file).catch((cause) => failed(cause, file));
}

function failed(cause: unknown, file: string): never {
  throw systemError(cause, { file });
}
