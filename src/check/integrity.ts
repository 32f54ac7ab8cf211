/** Checks `integrity.json`: digests that Megatron may write beside the files of a checkpoint. */

import type { Finding } from "../core/finding.ts";
import { finding, findingOf } from "../core/finding.ts";
import { sha256 } from "../core/hash.ts";
import { readSmall, type Store } from "../core/io.ts";
import { isJsonObject, parseJsonObject } from "../core/json.ts";

const NAME = /(^|\/)integrity\.json$/;
const MAX_INTEGRITY_BYTES = 16 * 1024 * 1024;
/** Limit of a file that is digested: indexes and configs. Files with weights are larger, and `check` does not read weights. */
const MAX_DIGESTED_BYTES = 1024 * 1024;

/** Findings for listed files that are missing, for small files with another digest, and for the number of files not digested. */
export async function checkIntegrity(store: Store): Promise<readonly Finding[]> {
  const files = await store.list();
  const sizes = new Map(files.map(({ path, size }) => [path, size]));
  const findings: Finding[] = [];
  for (const { path } of files) {
    if (!NAME.test(path)) continue;
    try {
      findings.push(...(await checkList(store, path, sizes)));
    } catch (error) {
      findings.push(findingOf(error, path));
    }
  }
  return findings;
}

async function checkList(
  store: Store,
  file: string,
  sizes: ReadonlyMap<string, number>,
): Promise<readonly Finding[]> {
  const json = parseJsonObject(await readSmall(store, file, MAX_INTEGRITY_BYTES), {
    code: "HEADER_INVALID",
    file,
  });
  const { algorithm, files } = json;
  if (algorithm !== "sha256" || !isJsonObject(files)) {
    return [finding("integrity-unread", "note", { file }, "the file does not list SHA-256 digests of files")];
  }
  const folder = file.replace(NAME, "$1");
  const findings: Finding[] = [];
  let unread = 0;
  for (const [name, digest] of Object.entries(files)) {
    const size = sizes.get(folder + name);
    if (size === undefined) {
      const message = `${file} lists this file, which does not exist`;
      findings.push(finding("integrity-missing", "error", { file: folder + name }, message));
    } else if (size > MAX_DIGESTED_BYTES) unread++;
    else if (sha256(await readSmall(store, folder + name, MAX_DIGESTED_BYTES)) !== digest) {
      const message = `the file does not have the digest that ${file} lists`;
      findings.push(finding("integrity-mismatch", "error", { file: folder + name }, message));
    }
  }
  if (unread > 0) {
    const message = `${unread} larger files of the list exist; their digests were not computed`;
    findings.push(finding("integrity-unread", "note", { file }, message));
  }
  return findings;
}
