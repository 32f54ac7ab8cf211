/**
 * Sorts the files beside the weights of a Hugging Face folder. Weights that the config needs and no index names are read.
 * Another set of the same weights, training state, and weights in other containers are not part of the model.
 */

import type { Header } from "../../formats/codec/safetensors.ts";
import { INDEX, SINGLE } from "../../formats/hf/place.ts";
import { isAppleDouble, readHeaders } from "../../formats/hf/weight-files.ts";
import type { Checkpoint, Remark, Sidecar, Surplus, Tensor } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { type ExpectedTensor, leafRoles, tensorsRead } from "../families/expand.ts";
import type { Family } from "../families/family.ts";
import { modelOf } from "../families/recognise.ts";
import { surplusKind } from "./surplus.ts";

/** Headers that are read at the same time. */
const FILES_AT_ONCE = 8;

/** Reason for weights of the model in files that are not read. */
const OTHER_SET = "another set of the weights";

/**
 * @param keepExtra surplus files are side files, except files that loaders would read in place of the weights
 * @throws INDEX_MISMATCH: a file has weights that the config needs, and weights that are read from another file;
 *   DUPLICATE_NAME: a tensor is in two files that no index names
 */
export async function chooseWeights(
  checkpoint: Checkpoint,
  families: readonly Family[],
  keepExtra: boolean,
): Promise<Checkpoint> {
  const { sidecars } = checkpoint;
  const paths = new Set([
    ...sidecars.map(({ path }) => path),
    ...checkpoint.weightFiles.map(({ path }) => path),
  ]);
  const found = await looseWeights(checkpoint, families);
  const read = completed(checkpoint, found.omitted);
  // Some loaders would follow an index of other files although a single file is read.
  const stale = (checkpoint.remarks ?? []).some(
    ({ rule }) => rule === "index-stale" || (rule === "two-sets" && isSingle(checkpoint)),
  );
  const surplusOf = (sidecar: Sidecar): Surplus | null => {
    const { path } = sidecar;
    const rival = found.rivals.includes(path);
    if (rival || (path === INDEX && stale)) {
      return { ...sidecar, why: OTHER_SET, rival: !path.includes("/") };
    }
    const why = surplusKind(path, paths);
    return why === undefined ? null : { ...sidecar, why, rival: false };
  };
  const surplus = read.sidecars.flatMap((sidecar) => surplusOf(sidecar) ?? []);
  const gone = new Set(surplus.filter(({ rival }) => rival || !keepExtra).map(({ path }) => path));
  const remarks = [...(checkpoint.remarks ?? []), ...found.remarks, ...adapterBeside(paths)];
  return {
    ...read,
    sidecars: read.sidecars.filter(({ path }) => !gone.has(path)),
    ...(remarks.length > 0 && { remarks }),
    ...(surplus.length > 0 && { surplus }),
  };
}

/** For other formats: files that macOS writes beside the files of a folder are not part of a model. */
export function dropCopies(checkpoint: Checkpoint, keepExtra: boolean): Checkpoint {
  const copies = checkpoint.sidecars.filter(({ path }) => isAppleDouble(path));
  if (copies.length === 0) return checkpoint;
  const why = surplusKind(copies[0]!.path, new Set())!;
  return {
    ...checkpoint,
    sidecars: checkpoint.sidecars.filter((file) => keepExtra || !copies.includes(file)),
    surplus: copies.map((file) => ({ ...file, why, rival: false })),
  };
}

function isSingle({ weightFiles }: Checkpoint): boolean {
  return weightFiles.length === 1 && weightFiles[0]!.path === SINGLE;
}

interface Loose {
  /** weights that the config needs and that no index names */
  readonly omitted: readonly (readonly [string, Header])[];
  /** weights of the model that are read from elsewhere */
  readonly rivals: readonly string[];
  readonly remarks: readonly Remark[];
}

/** Sorts every safetensors file that is not among the weights, by its header. */
async function looseWeights(checkpoint: Checkpoint, families: readonly Family[]): Promise<Loose> {
  const files = checkpoint.sidecars.map(({ path }) => path).filter(isCandidate);
  if (files.length === 0) return { omitted: [], rivals: [], remarks: [] };
  const headers: (readonly [string, Header])[] = [];
  for (let i = 0; i < files.length; i += FILES_AT_ONCE) {
    const some = files.slice(i, i + FILES_AT_ONCE).map((file) => headersOf(checkpoint, file));
    headers.push(...(await Promise.all(some)).flat());
  }
  const asked = askedFor(checkpoint, headers, families);
  const held = new Set(checkpoint.tensors.map(({ name }) => name));
  const omitted: (readonly [string, Header])[] = [];
  const rivals: string[] = [];
  const remarks: Remark[] = [];
  for (const entry of headers) {
    const [file, { tensors }] = entry;
    const names = tensors.map(({ name }) => name);
    const fresh = names.filter((name) => asked.lacking.has(name));
    const known = names.filter((name) => held.has(name) || (asked.all.has(name) && !asked.lacking.has(name)));
    if (fresh.length > 0 && known.length > 0) {
      const message = `no index names it, and it holds ${some(fresh)}, which the config asks for, beside ${some(known)}, which other files hold too`;
      const next = `remove the files that do not belong to the model, or name this one in ${INDEX}`;
      throw new IsologitError("INDEX_MISMATCH", message, { file, tensor: fresh[0]! }, { next });
    }
    if (fresh.length > 0) {
      omitted.push(entry);
      const message = `no index names it, and it holds ${some(fresh)}, which the config asks for: it is read here, loaders leave it out`;
      remarks.push({ rule: "index-omits", severity: "error", at: { file, tensor: fresh[0]! }, message });
    } else if (known.length > 0) rivals.push(file);
  }
  refuseTwice(omitted);
  return { omitted, rivals, remarks: [...remarks, ...otherSet(checkpoint, rivals)] };
}

function isCandidate(path: string): boolean {
  return path.endsWith(".safetensors") && !/(^|\/)(\._|adapter_)[^/]*$/.test(path);
}

/** Empty if the file is not readable safetensors, because no loader can read it. */
async function headersOf(
  { store }: Checkpoint,
  file: string,
): Promise<readonly (readonly [string, Header])[]> {
  try {
    return await readHeaders(store, [file]);
  } catch (error) {
    if (error instanceof IsologitError && error.exit === 3) return [];
    throw error;
  }
}

interface Asked {
  /** every name of the tensors of the model */
  readonly all: ReadonlySet<string>;
  /** names of the tensors that are missing in the weights */
  readonly lacking: ReadonlySet<string>;
}

/** Names that the config needs. Empty if no family matches; a later step reports that. */
function askedFor(
  checkpoint: Checkpoint,
  headers: readonly (readonly [string, Header])[],
  families: readonly Family[],
): Asked {
  const tensors = [...checkpoint.tensors, ...headers.flatMap(tensorsOf)];
  let stored: readonly ExpectedTensor[];
  try {
    const model = modelOf({ ...checkpoint, tensors }, families);
    stored = tensorsRead(model, model.dialect, model.parallelism);
  } catch (error) {
    if (error instanceof IsologitError && error.exit === 3) return { all: new Set(), lacking: new Set() };
    throw error;
  }
  const names = new Set(checkpoint.tensors.map(({ name }) => name));
  const isHere = ({ name, also }: ExpectedTensor) => [name, ...also].some((spelling) => names.has(spelling));
  const held = new Set(stored.filter(isHere).flatMap(({ layout }) => leafRoles(layout)));
  const lacking = stored.filter(({ layout }) => !leafRoles(layout).every((leaf) => held.has(leaf)));
  const namesOf = (some: readonly ExpectedTensor[]) =>
    new Set(some.flatMap(({ name, also }) => [name, ...also]));
  return { all: namesOf(stored), lacking: namesOf(lacking) };
}

function tensorsOf([file, header]: readonly [string, Header]): readonly Tensor[] {
  return header.tensors.map(({ name, dtype, shape, begin }) => {
    const start = shape.map(() => 0);
    return { name, dtype, shape, pieces: [{ file, offset: begin, start, shape }] };
  });
}

function completed(checkpoint: Checkpoint, omitted: Loose["omitted"]): Checkpoint {
  if (omitted.length === 0) return checkpoint;
  const files = new Set(omitted.map(([file]) => file));
  return {
    ...checkpoint,
    tensors: [...checkpoint.tensors, ...omitted.flatMap(tensorsOf)],
    weightFiles: [
      ...checkpoint.weightFiles,
      ...omitted.map(([path, { dataOffset }]) => ({
        path,
        header: { file: path, offset: 0, size: dataOffset },
      })),
    ],
    // A conversion writes a new index in place of an index that omits weights.
    sidecars: checkpoint.sidecars.filter(({ path }) => !files.has(path) && path !== INDEX),
  };
}

function refuseTwice(omitted: Loose["omitted"]): void {
  const found = new Map<string, string>();
  for (const [file, { tensors }] of omitted) {
    for (const { name: tensor } of tensors) {
      const other = found.get(tensor);
      if (other !== undefined) {
        const message = `no index names it, and ${other}, which none names either, holds this tensor too`;
        const next = `remove the file that does not belong to the model, or name the other in ${INDEX}`;
        throw new IsologitError("DUPLICATE_NAME", message, { file, tensor }, { next });
      }
      found.set(tensor, file);
    }
  }
}

/** Remark about weights of the model in files that are not read. For a single file with an index, a remark exists already. */
function otherSet({ remarks = [] }: Checkpoint, rivals: readonly string[]): readonly Remark[] {
  const [file] = rivals;
  if (file === undefined || remarks.some(({ rule }) => rule === "two-sets")) return [];
  const message = `${rivals.length === 1 ? "it holds" : `it and ${rivals.length - 1} more hold`} weights that are read from other files: no part of this model`;
  return [{ rule: "two-sets", severity: "warning", at: { file }, message }];
}

/** Remark about an adapter beside a model. Transformers applies the adapter if PEFT is installed. */
function adapterBeside(paths: ReadonlySet<string>): readonly Remark[] {
  const file = "adapter_config.json";
  if (!paths.has(file)) return [];
  const message =
    "an adapter lies beside the model: it is no part of what is read, but Transformers applies it where PEFT is installed";
  return [{ rule: "adapter-beside", severity: "warning", at: { file }, message }];
}

function some(names: readonly string[]): string {
  return names.length === 1 ? names[0]! : `${names[0]} and ${names.length - 1} more`;
}
