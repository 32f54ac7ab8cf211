/** Bytes that follow from the verification of staged files, and are written into them before they are published. */
import type { Writer } from "../../formats/format.ts";
import { ORIGIN_FOLDER, ORIGIN_ROOT } from "../core/carried-files.ts";
import { CERTIFICATE_FILE } from "../core/checkpoint.ts";
import type { Staging } from "../io/staging.ts";
import type { Plan } from "./types.ts";

/**
 * Writes the content root beside the carried files. Without a root, a later conversion back compares only the config.
 *
 * @param root of the destination; null if it was not computed
 */
export async function writeRoot({ placement }: Plan, staging: Staging, root: string | null): Promise<void> {
  if (root === null) return;
  if (placement.root !== undefined) {
    await staging.amend(placement.root.file, placement.root.offset, new TextEncoder().encode(root));
    return;
  }
  const path = ORIGIN_FOLDER + ORIGIN_ROOT;
  if (!placement.files.some((file) => file.path === path)) return;
  await staging.amend(path, 0, new TextEncoder().encode(`${root}\n`));
}

/** Writes the certificate into the staged folder, or after the last byte of the staged file. */
export async function writeCertificate(
  certificate: Uint8Array,
  writer: Writer,
  staging: Staging,
  { placement }: Plan,
): Promise<void> {
  const [path, bytes] =
    writer.trailer === undefined ? [CERTIFICATE_FILE, certificate] : ["", writer.trailer(certificate)];
  const before = placement.files.find((file) => file.path === path)?.size ?? 0;
  await staging.amend(path, before, bytes);
}
