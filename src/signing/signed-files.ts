/** Compares files with the bundle that signs them. Files are only hashed, not parsed. */
import { readFile, realpath, stat } from "node:fs/promises";
import { relative } from "node:path";
import { storeAt } from "../checkpoint/store.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import { isHubAddress } from "../io/address.ts";
import { fileStore } from "../io/file.ts";
import type { TrustOptions } from "./options.ts";
import { openBundle, readAuthorities, readCurveKey, type Trust } from "./sigstore-bundle.ts";
import { compareManifest, decodeStatement, type Manifest, manifestOf } from "./statement.ts";

/** Report about a bundle that was written, or whose signature is valid. */
export interface BundleReport {
  /** SHA-256 of the public key's PEM text, or the identity in the signing certificate */
  readonly signedBy: string;
  /** issuer of the identity; null for a key */
  readonly issuer: string | null;
  /** number of signed files */
  readonly files: number;
}

export interface SignedFiles {
  readonly report: BundleReport;
  readonly differences: readonly string[];
}

/**
 * Compares every file at an address with the bundle of the options.
 *
 * @returns null if the options have no bundle
 * @throws BUNDLE_INVALID, BUNDLE_UNTRUSTED, UNSUPPORTED; USAGE: the options name no trusted signer
 */
export async function compareSignedFiles(
  address: string,
  options: TrustOptions & { readonly signal?: AbortSignal },
): Promise<SignedFiles | null> {
  const { bundle: file, signal } = options;
  const trust = await trustOf(options);
  if (file === undefined || trust === null) return null;
  const { payload, signedBy, issuer } = await openBundle(await bytesOf(file), trust, file);
  const signed = decodeStatement(payload, file);
  const found = await hashFilesAt(address, [...signed.ignored, ...(await pathInside(address, file))], signal);
  return {
    report: { signedBy, issuer, files: signed.files.size },
    differences: compareManifest(signed, found),
  };
}

/** Hashes every file at an address. */
export async function hashFilesAt(
  address: string,
  ignored: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Manifest> {
  if (isHubAddress(address)) return await manifestOf(await storeAt(address, true), false, ignored, signal);
  const single = (await stat(address).catch((cause) => failed(cause, address))).isFile();
  // the file itself is hashed: `storeAt` would unpack a compressed archive
  return await manifestOf(await fileStore(address), single, ignored, signal);
}

/** Path of a bundle inside the folder that it signs. The bundle does not sign itself. */
async function pathInside(address: string, file: string): Promise<readonly string[]> {
  if (isHubAddress(address)) return [];
  const path = relative(await realpath(address), await realpath(file));
  return [path.replaceAll("\\", "/")];
}

/** @returns null if the options have no bundle */
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
    throw new IsologitError("USAGE", `\`bundle\` needs a trusted signer: ${wanted}`);
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
