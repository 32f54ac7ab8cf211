/** The model card of an upload: the card of the folder or of the repository, with the facts of the checkpoint. */
import { readFile, stat } from "node:fs/promises";
import { CARD_FILE } from "../core/checkpoint.ts";
import { systemError } from "../core/errors.ts";
import type { Connection } from "../hub/connection.ts";
import type { HubFile, Listing } from "../hub/files.ts";
import { remoteFile } from "../hub/read/remote.ts";
import type { LocalFile } from "../hub/upload/local-files.ts";
import { repoName } from "../io/address.ts";
import { readThroughBreaks } from "../io/http.ts";
import { cardOf, missingKeys } from "./card.ts";
import { type CardOptions, cardFacts } from "./facts.ts";

const MAX_CARD_BYTES = 4 * 1024 * 1024;

interface Card {
  readonly file: LocalFile;
  /** verdict of the certificate; null without a certificate */
  readonly verdict: "same" | "within" | null;
  /** keys of the front matter that a reader looks for and that nobody gave */
  readonly missing: readonly ("license" | "base_model")[];
}

/**
 * Writes the card, if the upload is a checkpoint at the root of the repository.
 *
 * @throws CERTIFICATE_INVALID: the certificate cannot be read, or is not of these files
 */
export async function cardFile(
  connection: Connection,
  before: Listing,
  path: string,
  local: readonly LocalFile[],
  options: CardOptions & { readonly inRepo: string },
): Promise<Card | undefined> {
  const { inRepo, baseModel } = options;
  const failed = (file: string) => (error: unknown) => {
    throw systemError(error, { file });
  };
  const atRoot = (await stat(path).catch(failed(path))).isDirectory() ? inRepo === "" : !inRepo.includes("/");
  if (!atRoot) return undefined;
  const facts = await cardFacts(path, before.repo, {
    ...options,
    baseModel: baseModel === undefined ? undefined : repoName(baseModel),
  });
  if (facts === undefined) return undefined;
  const own = local.find((file) => file.path === CARD_FILE);
  const remote = before.files.find((file) => file.path === CARD_FILE);
  const existing =
    own !== undefined && "file" in own.content
      ? await readFile(own.content.file, "utf8").catch(failed(own.content.file))
      : remote !== undefined && remote.size <= MAX_CARD_BYTES
        ? await textOf(connection, before, remote)
        : undefined;
  const text = cardOf(existing, facts, before.repo.split("/")[1]!);
  const file = { path: CARD_FILE, size: Buffer.byteLength(text), mtimeMs: 0, content: { text } };
  return { file, verdict: facts.proof?.verdict ?? null, missing: missingKeys(text) };
}

async function textOf(connection: Connection, { repo, commit }: Listing, file: HubFile): Promise<string> {
  const chunks: Uint8Array[] = [];
  const { patience } = connection.settings;
  const remote = remoteFile(connection, repo, commit, file);
  for await (const bytes of readThroughBreaks(remote, 0, file.size, { patience })) chunks.push(bytes);
  return Buffer.concat(chunks).toString("utf8");
}
