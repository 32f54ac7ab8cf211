/** The files of a revision, as the Hub lists them and as the cache records them. */
import { IsologitError } from "../core/errors.ts";
import { safePath } from "../core/safe-path.ts";

export interface HubFile {
  readonly path: string;
  /** bytes */
  readonly size: number;
  /** hexadecimal digest: SHA-256 for a file in LFS or Xet, git's SHA-1 for others; the name of the blob in the cache */
  readonly etag: string;
  /** git's SHA-1 of the committed file, or of the LFS pointer to it */
  readonly blob: string;
  readonly xet?: string;
}

/** Whether a file is in LFS or Xet, and not in git itself. */
export const isLarge = ({ etag }: HubFile): boolean => etag.length === 64;

export interface Listing {
  readonly repo: string;
  readonly commit: string;
  /** the requested branch, tag or commit */
  readonly revision: string;
  /** sorted by path */
  readonly files: readonly HubFile[];
}

/**
 * Sorts the files by path.
 *
 * @throws LISTING_UNSAFE for a path that occurs twice, leaves its folder, or is also a folder
 */
export function validateFiles(files: readonly HubFile[], repo: string): readonly HubFile[] {
  const unsafe = (message: string) => new IsologitError("LISTING_UNSAFE", message, { file: `hf://${repo}` });
  const sorted = [...files].sort((a, b) => (a.path < b.path ? -1 : 1));
  const names = new Set(sorted.map(({ path }) => path));
  if (names.size !== sorted.length) throw unsafe("the listing names a file twice");
  for (const { path } of sorted) {
    try {
      safePath(path);
    } catch {
      throw unsafe(`the repository has a file named ${JSON.stringify(path)}, which is not a plain path`);
    }
    for (let at = path.indexOf("/"); at >= 0; at = path.indexOf("/", at + 1)) {
      if (names.has(path.slice(0, at))) {
        throw unsafe(`${JSON.stringify(path.slice(0, at))} is both a file and a folder`);
      }
    }
  }
  return sorted;
}
