/** Addresses of checkpoints: a local path, or a place on the Hub. */
import { IsologitError } from "../core/errors.ts";
import type { Store } from "../core/io.ts";
import { safePath } from "../core/safe-path.ts";
import { fileStore } from "./file.ts";

export interface HubAddress {
  readonly kind: "hub";
  /** `owner/name` */
  readonly repo: string;
  /** a branch, a tag or a commit; absent: the default branch */
  readonly revision?: string;
  /** a folder, or a file, inside the repository */
  readonly path?: string;
}

type Address = { readonly kind: "local"; readonly path: string } | HubAddress;

/** One half of `owner/name`. The Hub refuses a double hyphen or dot, and its cache uses double hyphens as separators. */
const PART = /^(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?$/;

export function isHubAddress(text: string): boolean {
  return /^hf:\/\//i.test(text);
}

/**
 * Parses `hf://owner/name[@revision][/folder]`; any other text is a local path. A revision may contain slashes only as
 * `refs/pr/N`, or as `%2F`, as in the addresses of the Hub itself.
 *
 * @throws USAGE
 */
export function addressOf(text: string): Address {
  if (!isHubAddress(text)) return { kind: "local", path: text };
  const form = "hf://owner/name[@revision][/folder]";
  const [, owner, name, given, path] =
    /^hf:\/\/([^/@]+)\/([^/@]+)(?:@(refs\/pr\/\d+|[^/]+))?(?:\/(.*?))?\/?$/i.exec(text) ?? [];
  if (owner === undefined || name === undefined) {
    throw new IsologitError(
      "USAGE",
      `${JSON.stringify(text)} is not an address on the Hub, expected ${form}`,
    );
  }
  const repo = repoName(`${owner}/${name}`);
  const revision = given === undefined ? undefined : revisionName(decodeRevision(given, text));
  return {
    kind: "hub",
    repo,
    ...(revision !== undefined && { revision }),
    ...(path !== undefined && path !== "" && { path: safePath(path, { file: text }) }),
  };
}

/** `owner/name`, with or without `hf://` before it. @throws USAGE */
export function repoName(text: string): string {
  const bare = text.replace(/^hf:\/\//i, "");
  const parts = bare.split("/");
  if (parts.length === 2 && parts.every((part) => PART.test(part))) return bare;
  throw new IsologitError("USAGE", `${JSON.stringify(text)} is not a repository, expected owner/name`);
}

/** Checks a revision, because it becomes part of a URL and of a path in the cache. @throws USAGE */
export function revisionName(text: string): string {
  const safe = text.split("/").every((part) => part !== "" && part !== "." && part !== "..");
  if (safe && !/[\\\p{Cc}\s~^:?*[]/u.test(text)) return text;
  throw new IsologitError(
    "USAGE",
    `${JSON.stringify(text)} is not a revision, expected a branch, a tag or a commit`,
  );
}

function decodeRevision(text: string, address: string): string {
  try {
    return decodeURIComponent(text);
  } catch (cause) {
    throw new IsologitError("USAGE", `${JSON.stringify(address)} has a broken %-escape`, {}, { cause });
  }
}

/** Endings of archives that may be compressed with gzip, as by older releases of NeMo. */
const PACKED = /\.(nemo|tar|tgz|gz)$/i;

/** The files of a local path. @throws NOT_FOUND; for a path in the form of a repository the error names its address on the Hub */
export async function localStore(path: string): Promise<Store> {
  const store = await fileStore(path).catch((error: unknown) => {
    if (!(error instanceof IsologitError) || error.code !== "NOT_FOUND" || !isRepoName(path)) throw error;
    const next = `check the path, or write hf://${path} for the repository on the Hub`;
    throw new IsologitError("NOT_FOUND", error.message, error.at, { cause: error, next });
  });
  return await unpackStore(path, store);
}

/** Whether a text has the form `owner/name`. */
function isRepoName(text: string): boolean {
  return /^[\w-][\w.-]*\/[\w-][\w.-]*$/.test(text);
}

/** The store itself, or, if its only file is a gzip, a store of the inflated file. */
export async function unpackStore<S extends Store>(address: string, store: S): Promise<S | Store> {
  if (!PACKED.test(address)) return store;
  const { gunzipOnce } = await import("./gunzip.ts");
  return await gunzipOnce(store);
}
