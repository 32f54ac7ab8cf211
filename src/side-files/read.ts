/** Reads the side files of a checkpoint: beside its weights, inside a packed file, or among the carried files. */
import { createHash } from "node:crypto";
import { ORIGIN_HEADERS } from "../core/carried-files.ts";
import type { Checkpoint, Sidecar, Span, Surplus } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { Sources } from "../core/read.ts";
import { digestMismatchError, sealFinder } from "../core/sealed-spans.ts";

export const INDEX = "model.safetensors.index.json";
export const SINGLE = "model.safetensors";

/** Bytes read at a time. */
const PART_BYTES = 4 * 1024 * 1024;

/** The index of the weights. It describes the weight files and has no settings of the model. */
export function isOwnIndex(path: string, { weightFiles }: Pick<Checkpoint, "weightFiles">): boolean {
  return path === INDEX && !(weightFiles.length === 1 && weightFiles[0]!.path === SINGLE);
}

/** A side file and its span. */
interface Held {
  readonly sidecar: Sidecar;
  readonly sources: Sources;
}

/** Side files of a checkpoint by path, with the carried files in `isologit.origin/`. */
export class SideFiles implements AsyncDisposable {
  readonly #held = new Map<string, Held>();
  readonly #like = new Map<string, Held>();
  readonly #surplus = new Map<string, Surplus>();
  readonly #opened: Sources[] = [];

  /** @param like the files of the `like` checkpoint replace missing files */
  constructor(checkpoint: Checkpoint, like = false) {
    const sources = this.#sources(checkpoint);
    const carried = (checkpoint.carriedFiles?.sidecars ?? []).filter(
      ({ path }) => !path.startsWith(ORIGIN_HEADERS),
    );
    for (const file of checkpoint.surplus ?? []) this.#surplus.set(file.path, file);
    for (const sidecar of [...carried, ...this.#surplus.values(), ...checkpoint.sidecars]) {
      if (!isOwnIndex(sidecar.path, checkpoint)) this.#held.set(sidecar.path, { sidecar, sources });
    }
    const alike = like ? checkpoint.hints?.like : undefined;
    if (alike === undefined) return;
    const others = this.#sources(alike);
    for (const sidecar of alike.sidecars) this.#like.set(sidecar.path, { sidecar, sources: others });
  }

  /** Paths of the side files of the checkpoint itself. */
  get paths(): readonly string[] {
    return [...this.#held.keys()];
  }

  has(path: string): boolean {
    return this.#held.has(path) || this.#like.has(path);
  }

  /** Whether a file is not part of the model, so that a conversion leaves it out. */
  isSurplus(path: string): boolean {
    return this.#surplus.has(path);
  }

  /** Whether loaders may read the file instead of the weights. */
  isRival(path: string): boolean {
    return this.#surplus.get(path)?.rival === true;
  }

  size(path: string): number {
    return this.#find(path).sidecar.span.size;
  }

  bytes(path: string): Promise<Uint8Array> {
    const { sidecar, sources } = this.#find(path);
    return sources.bytes(sidecar.span.file, sidecar.span.offset, sidecar.span.size);
  }

  /** SHA-256, read in parts. */
  async digest(path: string): Promise<string> {
    const { sidecar, sources } = this.#find(path);
    return await digestOf(sidecar.span, sources);
  }

  #find(path: string): Held {
    const held = this.#held.get(path) ?? this.#like.get(path);
    if (held === undefined) throw new IsologitError("INTERNAL", "no such side file", { file: path });
    return held;
  }

  #sources({ store }: Checkpoint): Sources {
    const sources = new Sources(store);
    this.#opened.push(sources);
    return sources;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const sources of this.#opened) await sources[Symbol.asyncDispose]();
  }
}

async function digestOf({ file, offset, size }: Span, sources: Sources): Promise<string> {
  const hash = createHash("sha256");
  for (let at = 0; at < size; at += PART_BYTES) {
    hash.update(await sources.bytes(file, offset + at, Math.min(PART_BYTES, size - at)));
  }
  return hash.digest("hex");
}

/**
 * Compares every side file with the digest that the format stores, also a file that the other side lacks.
 *
 * @throws DIGEST_MISMATCH, naming the file
 */
export async function refuseDamagedFiles(checkpoint: Checkpoint): Promise<void> {
  const find = sealFinder(checkpoint);
  await using sources = new Sources(checkpoint.store);
  for (const { span, path } of [...(checkpoint.carriedFiles?.sidecars ?? []), ...checkpoint.sidecars]) {
    const seal = find(span);
    if (seal?.sha256 === undefined || seal.sha256 === (await digestOf(span, sources))) continue;
    throw digestMismatchError(seal, `${path} is not what was written: its SHA-256 differs`, span.offset);
  }
}
