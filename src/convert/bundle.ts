/** Signing a destination as a whole, once it is proven and in its place. */
import { lstat, writeFile } from "node:fs/promises";
import { basename, resolve } from "node:path";
import type { ConvertOptions, ConvertReport } from "../api.ts";
import { fromSystem, IsologitError } from "../core/errors.ts";
import { readCurveKey, signBundle } from "../verify/bundle.ts";
import { encodeStatement } from "../verify/manifest.ts";
import { filesAt } from "../verify/signed-files.ts";

/**
 * What signs the destination of a report, if its verdict let it appear. All that can be refused is refused now.
 *
 * @param file to write the bundle to
 * @throws USAGE, NOT_FOUND; DESTINATION_EXISTS: the bundle's file is there
 */
export async function sealerFor(
  destination: string,
  file: string,
  { sign, verify, overwrite = false, signal }: ConvertOptions,
): Promise<(report: ConvertReport) => Promise<ConvertReport>> {
  if (sign === undefined)
    throw new IsologitError("USAGE", "--bundle needs --sign with the key that signs it");
  if (verify === "off") throw new IsologitError("USAGE", "--bundle signs what is proven; --verify is off");
  const place = `${resolve(destination)}/`;
  if (`${resolve(file)}/`.startsWith(place))
    throw new IsologitError("USAGE", "the bundle would become part of what it signs", { file });
  const key = await readCurveKey(sign, "private");
  const exists = await lstat(file).then(
    () => true,
    () => false,
  );
  if (exists && !overwrite) throw new IsologitError("DESTINATION_EXISTS", "the bundle is there", { file });

  return async (report) => {
    const { verification, staged } = report;
    const proven = verification?.verdict === "same" || verification?.verdict === "within";
    if (!proven || staged !== undefined) return report;
    const manifest = await filesAt(destination, [], signal);
    const statement = encodeStatement(manifest, basename(resolve(destination)));
    const { text, signedBy } = await signBundle(statement, key);
    await writeFile(file, text, { flag: overwrite ? "w" : "wx" }).catch((cause) => {
      throw fromSystem(cause, { file });
    });
    const bundle = { signedBy, issuer: null, files: manifest.files.size };
    return { ...report, verification: { ...verification, bundle } };
  };
}
