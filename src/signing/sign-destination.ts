/** Signs all files of a destination after its verification. */
import { lstat, writeFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import { ignoreEvents, type Watch } from "../core/events.ts";
import { KEYLESS, keylessSigner, refuseKeyless } from "./keyless.ts";
import type { SignOptions } from "./options.ts";
import type { BundleReport } from "./signed-files.ts";
import { hashFilesAt } from "./signed-files.ts";
import { type BundleSigner, readCurveKey, signBundle } from "./sigstore-bundle.ts";
import { encodeStatement } from "./statement.ts";

export interface SignedDestination {
  readonly report: BundleReport;
  /** Writes the bundle. Call it after the signed files are in their place. */
  write(): Promise<void>;
}

/** How a destination is written and watched, as far as signing needs it. */
interface DestinationOptions {
  /** replace a bundle that exists */
  readonly overwrite?: boolean;
  readonly watch?: Watch;
  readonly signal?: AbortSignal;
}

/** @param address current path of the destination, which may be its staging folder */
export type SignDestination = (address: string) => Promise<SignedDestination>;

/**
 * Creates the function that signs every file of a destination. Wrong options are errors now.
 *
 * @returns null if the options have no bundle
 * @throws USAGE, NOT_FOUND; DESTINATION_EXISTS: the file of the bundle exists; the errors of `keylessSigner`
 */
export async function signerFor(
  destination: string,
  options: SignOptions & DestinationOptions,
): Promise<SignDestination | null> {
  const { bundle: file, overwrite = false, signal, watch = ignoreEvents } = options;
  if (options.sign !== KEYLESS) refuseKeyless(options);
  if (file === undefined) {
    if (options.sign !== KEYLESS) return null;
    throw new IsologitError("USAGE", `\`sign\` ${KEYLESS} needs \`bundle\` with the file to write`);
  }
  const place = `${resolve(destination)}/`;
  if (`${resolve(file)}/`.startsWith(place))
    throw new IsologitError("USAGE", "the bundle would be one of the files that it signs", { file });
  const sign = await bundleSigner(options);
  const exists = await lstat(file).then(
    () => true,
    () => false,
  );
  if (exists && !overwrite)
    throw new IsologitError("DESTINATION_EXISTS", "the bundle exists already", { file });

  return async (address) => {
    watch({ type: "phase", phase: "sign" });
    const manifest = await hashFilesAt(address, [], signal);
    const statement = encodeStatement(manifest, basename(resolve(destination)));
    const { text, signedBy, issuer } = await sign(statement);
    return {
      report: { signedBy, issuer, files: manifest.files.size },
      write: () =>
        writeFile(file, text, { flag: overwrite ? "w" : "wx" }).catch((cause) => {
          throw systemError(cause, { file });
        }),
    };
  };
}

async function bundleSigner(options: SignOptions & DestinationOptions): Promise<BundleSigner> {
  const { sign, signal } = options;
  if (sign === undefined)
    throw new IsologitError("USAGE", `\`bundle\` needs \`sign\` with a key, or ${KEYLESS}`);
  if (sign === KEYLESS) return await keylessSigner(options, signal);
  const key = await readCurveKey(sign, "private");
  return (payload) => signBundle(payload, key);
}
