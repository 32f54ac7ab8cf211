/** Faults of the lists of modules that are not quantised. */
import type { QuantizedFolder, StoredModule } from "../engines/folder.ts";
import { engineName } from "../module-patterns.ts";
import { fault, type UnjudgedFault } from "./fault.ts";
import { idsOf, type ListReader } from "./readers.ts";

/** Faults of the lists themselves, and of modules that are stored otherwise than the lists say. */
export function listFaults(
  folder: QuantizedFolder,
  readers: readonly ListReader[],
): readonly UnjudgedFault[] {
  return [
    ...keyFaults(folder, readers),
    ...entryFaults(folder, readers),
    ...folder.modules.flatMap((module) => moduleFaults(module, folder, readers)),
  ];
}

/** A list under a key that engines do not read for this method. */
function keyFaults({ scheme }: QuantizedFolder, readers: readonly ListReader[]): readonly UnjudgedFault[] {
  return [...scheme.lists].flatMap(([key, entries]) => {
    const blind = readers.filter(({ keys }) => {
      const read = new Set(keys.flatMap((other) => scheme.lists.get(other) ?? []));
      return !keys.includes(key) && entries.some((entry) => !read.has(entry));
    });
    if (blind.length === 0) return [];
    const expected = [...new Set(blind.flatMap(({ keys }) => keys))].join(" or ");
    const message = `its list ${key} has ${entries.length} entries, and no engine of ${scheme.method} reads this key here, only ${expected}: the modules are not left alone (https://github.com/vllm-project/vllm/pull/25706)`;
    return [fault("quantization-list-key", "error", message, { engines: idsOf(blind) })];
  });
}

/** Ending of each name that Model-Optimizer writes with Transformers 5, instead of the name alone. */
const SENTINEL = /\0.*pt_name_sentinel/;

/** Entries that name no module. A few are usual: lists are written for a whole family. */
function entryFaults(folder: QuantizedFolder, readers: readonly ListReader[]): readonly UnjudgedFault[] {
  const entries = [
    ...new Set(readers.flatMap(({ keys }) => keys).flatMap((key) => folder.scheme.lists.get(key) ?? [])),
  ];
  const namesModule = createNameSearch(folder, readers);
  const unmatched = entries.filter((entry) => !namesModule(entry));
  if (unmatched.length === 0) return [];
  const ruined = unmatched.filter((entry) => SENTINEL.test(entry));
  const count = `${unmatched.length} of ${entries.length} entries of its list name no module`;
  const engines = idsOf(readers);
  if (ruined.length > 0) {
    const message = `${count}: ${ruined.length} of them have the ending \`.\\0backbone.pt_name_sentinel\`, which Model-Optimizer writes with Transformers 5; remove it (https://github.com/NVIDIA/TensorRT-LLM/pull/18607)`;
    return [fault("quantization-entry-unmatched", "error", message, { engines })];
  }
  const examples = unmatched.slice(0, 3).map((entry) => JSON.stringify(entry));
  const message = `${count}: ${examples.join(", ")}${unmatched.length > 3 ? " …" : ""}`;
  return [fault("quantization-entry-unmatched", "note", message, { engines, loads: true })];
}

/**
 * The function that tells whether an entry names a module for one of the readers. A checkpoint may have 40,000 experts, so
 * the other modules are tried first, and an entry whose text is in no name is not tried.
 */
function createNameSearch(
  { names, expressions }: QuantizedFolder,
  readers: readonly ListReader[],
): (entry: string) => boolean {
  const known = new Set(names);
  const text = names.flatMap((name) => [name, engineName(name)]).join("\n");
  const isOfExpert = (name: string) => /\.experts\.\d/.test(name);
  const ordered = [...names.filter((name) => !isOfExpert(name)), ...names.filter(isOfExpert)];
  return (entry) => {
    if (known.has(entry)) return true;
    const plain = entry.replace(/^\*/, "").replace(/\.?\*$/, "");
    if (/^[\w.-]*$/.test(plain) && !text.includes(plain)) return false;
    return readers.some(({ method }) => {
      const findEntry = method.findEntry([entry], expressions);
      return ordered.some((name) => findEntry(name) !== undefined);
    });
  };
}

/** A module that is listed and quantised, or neither, for some of the readers. */
function moduleFaults(
  { name, weight, encoding, groups, isHead }: StoredModule,
  { scheme }: QuantizedFolder,
  readers: readonly ListReader[],
): readonly UnjudgedFault[] {
  if (groups.length === 0) return [];
  const isNamed = isHead && groups.some(({ targets }) => targets?.includes(name));
  const found = readers.map((reader) => ({ reader, entry: reader.findEntry(name) }));
  const wrong = found.filter(({ reader, entry }) => {
    if (encoding !== null) return entry !== undefined;
    return entry === undefined && (!isHead || reader.method.head || isNamed);
  });
  const [first] = wrong;
  if (first === undefined) return [];
  // A method without groups is one finding of its own, and each module would repeat it.
  if (encoding === null && scheme.groups.length === 0) return [];
  const message =
    encoding !== null
      ? `it is ${encoding}, but the config lists its module as ignored, by the entry ${JSON.stringify(first.entry)}`
      : `it is ${weight.dtype}, but the config does not list its module as ignored: engines expect a scale`;
  const wrongReaders = wrong.map(({ reader }) => reader);
  // the rule of an engine explains the fault only where another engine reads the list otherwise
  const reasons = wrong.length === found.length ? {} : reasonsOf(wrongReaders);
  const isFirm = wrongReaders.some(({ method }) => method.varies !== true);
  const [rule, severity] = isFirm
    ? (["quantization-contradiction", "error"] as const)
    : (["engine-list", "note"] as const);
  return [fault(rule, severity, message, { tensor: weight.name, engines: idsOf(wrongReaders), reasons })];
}

function reasonsOf(readers: readonly ListReader[]): UnjudgedFault["reasons"] {
  return Object.fromEntries(readers.flatMap(({ id, method }) => (id === null ? [] : [[id, method.rule]])));
}
