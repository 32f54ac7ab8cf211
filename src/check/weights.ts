/** Compares weights with the config: missing tensors, unknown tensors, other shapes, and likely causes. */

import type { Checkpoint, Tensor } from "../core/checkpoint.ts";
import { sameShape } from "../core/dtype.ts";
import { formatQuantity } from "../core/figures.ts";
import type { Finding } from "../core/finding.ts";
import { finding, findingOf } from "../core/finding.ts";
import { shapeOf } from "../core/mapping/layout.ts";
import { leafRoles, tensorsHeld, tensorsRead } from "../families/expand.ts";
import type { Family } from "../families/family.ts";
import { causesOf, causeText, misfitOf, type ShapeMisfit } from "../families/likely-cause.ts";
import { matchRoles } from "../families/match.ts";
import type { MatchedModel, RecognisedModel } from "../families/model.ts";
import { modelOf } from "../families/recognise.ts";

/**
 * @param companions names of stored scales, which are not roles
 * @param address    location of findings that are not about one file
 */
export function checkWeights(
  checkpoint: Checkpoint,
  families: readonly Family[],
  companions: ReadonlySet<string>,
  address: string,
): readonly Finding[] {
  try {
    const matched = matchRoles(checkpoint, families, companions);
    return [...asides(matched), ...memorySpelling(matched)];
  } catch (error) {
    const first = findingOf(error, address);
    const every = everyFault(checkpoint, families, companions);
    return every.length === 0 ? [first] : every;
  }
}

/** Notes about entries beside the model in a checkpoint without faults. */
function asides({ dropped, notes, checkpoint, tensors }: MatchedModel): readonly Finding[] {
  const file = checkpoint.store.url;
  return [
    ...dropped.map(({ why, names }) => {
      const tensor = tensors.get(names[0]!)?.name;
      const at = { file, ...(tensor !== undefined && { tensor }) };
      return finding(
        "left-out",
        "note",
        at,
        `${formatQuantity(names.length, "entry", "entries")} outside the model: ${why}`,
      );
    }),
    ...notes.map((note) => finding("inferred", "note", { file }, note)),
  ];
}

/** Warning for tensor names that libraries use in memory and that the dialect does not write. */
function memorySpelling(matched: MatchedModel): readonly Finding[] {
  const { renamed } = matched.dialect;
  if (renamed === undefined) return [];
  const { stored, loaded } = renamed;
  const held = tensorsHeld(matched).find(({ name, readOnly }) => readOnly || name.startsWith(loaded));
  if (held === undefined) return [];
  const message = `the name is that of Transformers 5 in memory; published checkpoints use ${stored} and one matrix for each expert, and NVIDIA's code reads no other names`;
  return [finding("memory-spelling", "warning", placeOf(matched.tensors.get(held.name)!), message)];
}

/** All names and shapes that do not fit; `matchRoles` stops at the first. Empty for other faults. */
function everyFault(
  checkpoint: Checkpoint,
  families: readonly Family[],
  companions: ReadonlySet<string>,
): readonly Finding[] {
  const model = understood(checkpoint, families);
  if (model === null || model.dialect.ranked === true) return [];
  const tensors = new Map(checkpoint.tensors.map((tensor) => [tensor.name, tensor]));
  const left = new Set([...tensors.keys()].filter((name) => !companions.has(name)));
  for (const name of left) if (model.dialect.drop.some(({ match }) => match.test(name))) left.delete(name);
  const findings: Finding[] = [];
  const misfits: ShapeMisfit[] = [];
  const readable = tensorsRead(model, model.dialect, model.parallelism).map((stored) => {
    const { name, also } = stored;
    const tensor = [name, ...also]
      .map((spelling) => tensors.get(spelling))
      .find((found) => found !== undefined);
    return { ...stored, tensor };
  });
  const here = readable.filter(({ tensor }) => tensor !== undefined);
  const held = new Set(here.flatMap(({ layout }) => leafRoles(layout)));
  for (const { name, readOnly, layout, tensor } of readable) {
    if (tensor === undefined) {
      const at = { file: checkpoint.store.url, tensor: name };
      // roles that another tensor has in another layout are not missing
      const tied =
        model.tied && layout.op === "leaf" && model.roles.get(layout.of)!.spec.tiedTo !== undefined;
      if (!readOnly && !tied && !leafRoles(layout).every((leaf) => held.has(leaf)))
        findings.push(finding("tensor-missing", "error", at, "the config requires this tensor"));
      continue;
    }
    left.delete(tensor.name);
    if (!sameShape(tensor.shape, shapeOf(layout))) misfits.push(misfitOf(tensor, layout, model));
  }
  const cause = causeText(causesOf(model, misfits));
  for (const { tensor, asked } of misfits) {
    const message = `its shape is [${tensor.shape.join(", ")}]; the config requires [${asked.join(", ")}]${cause}`;
    findings.push(finding("shape-mismatch", "error", placeOf(tensor), message));
  }
  for (const name of left) {
    const message = "the config does not describe this tensor";
    findings.push(finding("tensor-unknown", "error", placeOf(tensors.get(name)!), message));
  }
  return findings;
}

/** Null if the config cannot be read. */
function understood(checkpoint: Checkpoint, families: readonly Family[]): RecognisedModel | null {
  try {
    return modelOf(checkpoint, families);
  } catch {
    return null; // `matchRoles` has reported the same fault
  }
}

function placeOf({ name, pieces }: Tensor) {
  const [piece] = pieces;
  return { file: piece?.file ?? "", tensor: name, ...(piece !== undefined && { offset: piece.offset }) };
}
