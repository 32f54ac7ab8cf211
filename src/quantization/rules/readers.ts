/** The engines that read a declaration, with the modules that each of them leaves as they are. */
import type { DeclarationFile } from "../../checkpoint/declared-quantization.ts";
import type { Engine, EngineId, MethodReader } from "../engines/engine.ts";
import type { QuantizedFolder } from "../engines/folder.ts";
import { patternOfAncestor } from "../engines/matching.ts";
import { LIST_KEYS, type ListKey } from "../scheme.ts";

export interface ListReader {
  /** null: the reader stands for engines of a method that no engine here knows */
  readonly id: EngineId | null;
  /** the keys of lists that it reads */
  readonly keys: readonly ListKey[];
  readonly method: MethodReader;
  /** the entry that leaves a module as it is */
  readonly findEntry: (module: string) => string | undefined;
}

/** Key of the list in ModelOpt's file. */
const MODELOPT_LIST: readonly ListKey[] = ["exclude_modules"];

/** A method of which nothing is known but its name. */
const ANY_METHOD: MethodReader = {
  lists: LIST_KEYS,
  findEntry: patternOfAncestor,
  rule: "",
  head: false,
};

/** @param engines those that find the declaration of this file */
export function readersOf(
  folder: QuantizedFolder,
  file: DeclarationFile,
  engines: readonly Engine[],
): readonly ListReader[] {
  const readers = engines.flatMap(({ id, methods }) => {
    const method = methods[folder.scheme.method ?? ""];
    return method === undefined ? [] : [{ id, method }];
  });
  const found = readers.length > 0 ? readers : [{ id: null, method: ANY_METHOD }];
  return found.map(({ id, method }): ListReader => {
    const keys = id !== null && file === "hf_quant_config.json" ? MODELOPT_LIST : method.lists;
    const entries = keys.flatMap((key) => folder.scheme.lists.get(key) ?? []);
    return { id, keys, method, findEntry: method.findEntry(entries, folder.expressions) };
  });
}

export function idsOf(readers: readonly ListReader[]): readonly EngineId[] {
  return readers.flatMap(({ id }) => id ?? []);
}
