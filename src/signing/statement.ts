/**
 * What a model signature says: an in-toto statement of the OpenSSF model-signing form, with the SHA-256 of every file.
 * Nothing here knows who signs it.
 */
import { createHash } from "node:crypto";
import { z } from "zod";
import { IsologitError } from "../core/errors.ts";
import type { Store } from "../core/io.ts";
import { parseJsonObject } from "../core/json.ts";
import { digestExcept } from "../io/digest.ts";

export const PAYLOAD_TYPE = "application/vnd.in-toto+json";
const STATEMENT_TYPE = "https://in-toto.io/Statement/v1";
const PREDICATE_TYPE = "https://model_signing/signature/v1.0";

/** At the top of a folder these are of git, not of the model, whatever a signature says. */
const IGNORED = [".git", ".gitattributes", ".github", ".gitignore"];

/** What a model of one file calls that file: the path from the model to itself. */
const ITSELF = ".";

const hex = z.string().regex(/^[0-9a-f]{64}$/);
/** Fields that nobody asked for are let pass, as in-toto wants it: later versions may add some. */
const Statement = z.object({
  _type: z.literal(STATEMENT_TYPE),
  subject: z.tuple([z.object({ name: z.string(), digest: z.object({ sha256: hex }) })]),
  predicateType: z.literal(PREDICATE_TYPE),
  predicate: z.object({
    serialization: z.object({
      method: z.string(),
      hash_type: z.string(),
      allow_symlinks: z.boolean(),
      ignore_paths: z.array(z.string()).exactOptional(),
    }),
    resources: z.array(z.object({ name: z.string(), algorithm: z.string(), digest: z.string() })).min(1),
  }),
});

/** Files that were signed. */
export interface Manifest {
  /** SHA-256 of each file, by its path with `/` between names; `.` where the model is one file */
  readonly files: ReadonlyMap<string, string>;
  /** paths, each with all below it, that the signer left out */
  readonly ignored: readonly string[];
}

/**
 * Reads and hashes every file of a checkpoint.
 *
 * @param single it is one file, which may be renamed
 * @param ignored paths that are no part of it, each with all below
 */
export async function manifestOf(
  store: Store,
  single: boolean,
  ignored: readonly string[],
  signal: AbortSignal | undefined,
): Promise<Manifest> {
  const files = new Map<string, string>();
  const skipped = [...IGNORED, ...ignored];
  for (const { path, size } of await store.list()) {
    if (!single && skipped.some((skip) => path === skip || path.startsWith(`${skip}/`))) continue;
    await using source = await store.open(path);
    files.set(single ? ITSELF : path, await digestExcept(source, size, [], signal));
  }
  return { files, ignored };
}

/** The statement's bytes: what gets signed. */
export function encodeStatement({ files, ignored }: Manifest, name: string): Buffer {
  // by code points, as UTF-8 sorts
  const sorted = [...files].sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  const resources = sorted.map(([path, digest]) => ({ name: path, algorithm: "sha256", digest }));
  const statement: z.infer<typeof Statement> = {
    _type: STATEMENT_TYPE,
    subject: [{ name, digest: { sha256: rootOf(resources) } }],
    predicateType: PREDICATE_TYPE,
    predicate: {
      serialization: {
        method: "files",
        hash_type: "sha256",
        allow_symlinks: false,
        ignore_paths: [...IGNORED, ...ignored],
      },
      resources,
    },
  };
  return Buffer.from(JSON.stringify(statement));
}

/**
 * @throws BUNDLE_INVALID: no statement of this form, or one that contradicts itself; UNSUPPORTED: a way of hashing that
 *   is not read here
 */
export function decodeStatement(payload: Uint8Array, file: string): Manifest {
  const refuse = (message: string) => new IsologitError("BUNDLE_INVALID", message, { file });
  const value = parseJsonObject(payload, { file, code: "BUNDLE_INVALID" });
  const parsed = Statement.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw refuse(`what was signed is no model signature: ${issue.path.join(".")}: ${issue.message}`);
  }
  const { subject, predicate } = parsed.data;
  const { serialization, resources } = predicate;
  const { method, hash_type: hash, ignore_paths: ignored = [] } = serialization;
  if (method !== "files" || hash !== "sha256" || resources.some(({ algorithm }) => algorithm !== "sha256")) {
    const next = { next: "ask its signer for one by files and SHA-256, or check it with model_signing" };
    throw new IsologitError("UNSUPPORTED", `it hashes ${method} with ${hash}`, { file }, next);
  }
  const wrong = resources.find(({ digest }) => !hex.safeParse(digest).success);
  if (wrong !== undefined) throw refuse(`the digest of ${JSON.stringify(wrong.name)} is no SHA-256`);
  if (rootOf(resources) !== subject[0].digest.sha256) throw refuse("its digests do not make its root");
  const files = new Map(resources.map(({ name, digest }) => [name, digest]));
  if (files.size !== resources.length) throw refuse("it names a file twice");
  return { files, ignored };
}

/** How the files that are there differ from those that were signed; empty where they do not. */
export function compareManifest(signed: Manifest, found: Manifest): readonly string[] {
  const named = (path: string) => (path === ITSELF ? "the file" : path);
  const changed = [...signed.files].flatMap(([path, digest]) => {
    const now = found.files.get(path);
    if (now === undefined) return [`${named(path)} was signed and is missing`];
    return now === digest ? [] : [`${named(path)} is not what was signed`];
  });
  const more = [...found.files.keys()].filter((path) => !signed.files.has(path));
  return [...changed, ...more.map((path) => `${named(path)} was not signed`)];
}

/** SHA-256 over all digests in their order. */
function rootOf(resources: readonly { readonly digest: string }[]): string {
  const hash = createHash("sha256");
  for (const { digest } of resources) hash.update(Buffer.from(digest, "hex"));
  return hash.digest("hex");
}
