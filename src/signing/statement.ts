/**
 * The statement that a model signature signs: an in-toto statement of OpenSSF model signing, with the SHA-256 of every
 * file. The statement does not name the signer.
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

/** Names at the top of a folder that belong to git and not to the model. They are never signed. */
const IGNORED = [".git", ".gitattributes", ".github", ".gitignore"];

/** Name of the file in the statement of a model that is one file. */
const ITSELF = ".";

const hex = z.string().regex(/^[0-9a-f]{64}$/);
/** Unknown fields are allowed, as in-toto requires: later versions may add fields. */
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

/** The signed files. */
export interface Manifest {
  /** SHA-256 of each file, by its path with `/` between names; `.` if the model is one file */
  readonly files: ReadonlyMap<string, string>;
  /** paths that the signer left out, each with all paths below it */
  readonly ignored: readonly string[];
}

/**
 * Reads and hashes every file of a checkpoint.
 *
 * @param single the checkpoint is one file, which may be renamed
 * @param ignored paths to leave out, each with all paths below it
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

/** The bytes of the statement, which are the signed payload. */
export function encodeStatement({ files, ignored }: Manifest, name: string): Buffer {
  // in the order of UTF-8 bytes
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
 * @throws BUNDLE_INVALID: not a statement of this form, or a statement that contradicts itself; UNSUPPORTED: another way
 *   of hashing
 */
export function decodeStatement(payload: Uint8Array, file: string): Manifest {
  const refuse = (message: string) => new IsologitError("BUNDLE_INVALID", message, { file });
  const value = parseJsonObject(payload, { file, code: "BUNDLE_INVALID" });
  const parsed = Statement.safeParse(value);
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!;
    throw refuse(`the payload is not a model signature: ${issue.path.join(".")}: ${issue.message}`);
  }
  const { subject, predicate } = parsed.data;
  const { serialization, resources } = predicate;
  const { method, hash_type: hash, ignore_paths: ignored = [] } = serialization;
  if (method !== "files" || hash !== "sha256" || resources.some(({ algorithm }) => algorithm !== "sha256")) {
    const next = {
      next: "ask the signer for a bundle with files and SHA-256, or check this bundle with model_signing",
    };
    throw new IsologitError(
      "UNSUPPORTED",
      `the bundle uses the method ${method} with ${hash}; files with sha256 are checked`,
      { file },
      next,
    );
  }
  const wrong = resources.find(({ digest }) => !hex.safeParse(digest).success);
  if (wrong !== undefined) throw refuse(`the digest of ${JSON.stringify(wrong.name)} is not a SHA-256`);
  if (rootOf(resources) !== subject[0].digest.sha256) throw refuse("the digests do not match the root");
  const files = new Map(resources.map(({ name, digest }) => [name, digest]));
  if (files.size !== resources.length) throw refuse("the statement names a file twice");
  return { files, ignored };
}

/** One sentence for each difference between the signed files and the found files. */
export function compareManifest(signed: Manifest, found: Manifest): readonly string[] {
  const named = (path: string) => (path === ITSELF ? "the file" : path);
  const changed = [...signed.files].flatMap(([path, digest]) => {
    const now = found.files.get(path);
    if (now === undefined) return [`${named(path)} was signed and is missing`];
    return now === digest ? [] : [`${named(path)} differs from the signed file`];
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
