/** The GGUF files of a folder: one model, in one file or in parts, or several models. */
import { IsologitError } from "../../src/core/errors.ts";
import { readRange, type Store } from "../../src/core/io.ts";
import { MAGIC } from "../codec/gguf/types.ts";

const ENDING = /^[^/]+\.gguf$/i;
/** llama.cpp derives the names of the other parts from that of the first one. Numbers begin at 1. */
const PART = /^(.+)-(\d{5})-of-(\d{5})\.gguf$/;
/** More parts than the largest published model has by far. */
const MAX_PARTS = 10_000;
const SHOWN = 6;

/** Files at the top of a store that are named as GGUF; of a store with one file that file, whatever its name. */
export function ggufNamed(paths: readonly string[]): readonly string[] {
  return paths.length === 1 ? paths : paths.filter((path) => ENDING.test(path));
}

export async function hasMagic(store: Store, path: string): Promise<boolean> {
  await using source = await store.open(path);
  if (source.size < MAGIC.length) return false;
  return Buffer.from(await readRange(source, 0, MAGIC.length)).toString("latin1") === MAGIC;
}

/**
 * The files of the only model, in order.
 *
 * @param named result of `ggufNamed`, not empty
 * @throws FORMAT_AMBIGUOUS if there are several models; TENSOR_MISSING if a part is missing
 */
export function partsAmong(named: readonly string[]): readonly string[] {
  const models = new Map<string, string[]>();
  for (const path of named) {
    const [, model, , count] = PART.exec(path) ?? [];
    const key = model === undefined ? path : `${model}-of-${count}`;
    models.set(key, [...(models.get(key) ?? []), path]);
  }
  const [only, ...more] = [...models.values()];
  if (more.length > 0) {
    const firsts = [...models.values()].map(([first]) => first!);
    const shown = firsts.slice(0, SHOWN).join(", ") + (firsts.length > SHOWN ? ", …" : "");
    const message = `these are ${models.size} models in GGUF: ${shown}`;
    const next = "give the address of one of the files, or a folder with the parts of one model alone";
    throw new IsologitError("FORMAT_AMBIGUOUS", message, {}, { next });
  }
  const [, , , digits] = PART.exec(only![0]!) ?? [];
  return digits === undefined ? only! : allParts(only!, Number(digits));
}

function allParts(paths: readonly string[], count: number): readonly string[] {
  const first = paths[0]!;
  if (count < 1 || count > MAX_PARTS) {
    const message = `the name says ${count} parts; 1 to ${MAX_PARTS} are read`;
    throw new IsologitError("LIMIT_EXCEEDED", message, { file: first });
  }
  const present = new Set(paths);
  const wanted = Array.from({ length: count }, (_, i) =>
    first.replace(PART, `$1-${String(i + 1).padStart(5, "0")}-of-$3.gguf`),
  );
  const missing = wanted.filter((path) => !present.has(path));
  if (missing.length === 0) return wanted;
  const message = `the model has ${count} parts; ${missing.length} of them are not here, such as ${missing[0]}`;
  const next = "put all parts into one folder";
  throw new IsologitError("TENSOR_MISSING", message, { file: first }, { next });
}
