/** Warnings of a plan, and the parts of a source that are not copied. */

import type { WantedTensor } from "../../formats/format.ts";
import { describeSurplus } from "../checkpoint/surplus.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { type ExpectedTensor, leafRoles } from "../families/expand.ts";
import type { MatchedModel } from "../families/model.ts";
import type { PlanOptions } from "./options.ts";
import { CONFIG_DIALECT } from "./sidecars/config-file.ts";
import type { DroppedEntries } from "./types.ts";

/** Warnings about the source's files, and about files that do not belong to the model. */
export function fileWarnings(
  { remarks = [], surplus = [] }: Checkpoint,
  { keepExtra }: PlanOptions,
): readonly string[] {
  const odd = remarks
    .filter(({ severity }) => severity !== "note")
    .map(({ at, message }) => `${at.file}: ${message}`);
  const beside = describeSurplus(surplus, keepExtra ?? false);
  return [...odd, ...beside];
}

/** Warnings about tensors of a folder that loaders skip. Training state in other checkpoints is counted, not named. */
export function skippedTensors({ dropped, tensors, dialect }: MatchedModel): readonly string[] {
  if (dialect.id !== CONFIG_DIALECT) return [];
  return dropped.flatMap(({ why, names }) => {
    const held = names.filter((name) => tensors.has(name));
    if (held.length === 0) return [];
    const named = held.length === 1 ? held[0] : `${held[0]} and ${held.length - 1} more`;
    return [`${named}: left out (${why})`];
  });
}

/** A warning for a head that the source does not store and the destination does. */
export function tiedHeadWarnings(
  { tied, roles, roleSources, tensors, holds }: MatchedModel,
  stored: readonly ExpectedTensor[],
): readonly string[] {
  const heads = tied ? [...roles.values()].filter(({ spec }) => spec.tiedTo !== undefined) : [];
  return heads.flatMap(({ key }) => {
    const table = tensors.get(roleSources.get(key)![0]!.of!)!.name;
    const isStored = [...holds.values()].flat().includes(key);
    const written = stored.find(({ layout }) => leafRoles(layout).includes(key));
    return isStored || written === undefined
      ? []
      : [`tie_word_embeddings is true and no head is stored: ${table} is written as ${written.name} too`];
  });
}

/** A warning if names in the destination differ from the source. A single other name is an old name of the same module. */
export function renameWarnings({ holds }: MatchedModel, tensors: readonly WantedTensor[]): readonly string[] {
  const names = new Set(tensors.map(({ name }) => name));
  const gone = [...holds.keys()].filter((name) => !names.has(name));
  if (gone.length < 2) return [];
  return [`${gone.length} tensors, ${gone[0]} the first, are written under the published names`];
}

export function droppedFiles(
  { surplus = [] }: Checkpoint,
  { keepExtra }: PlanOptions,
): readonly DroppedEntries[] {
  const left = surplus.filter(({ rival }) => rival || keepExtra !== true);
  return [...new Set(left.map(({ why }) => why))].map((why) => {
    const files = left.filter((file) => file.why === why);
    return { why, entries: files.length, bytes: files.reduce((sum, { span }) => sum + span.size, 0) };
  });
}

/** Warnings about keys of the source's config that the settings, and so the destination's record, do not contain. */
export function lostKeys({ checkpoint, dialect }: MatchedModel): readonly string[] {
  return dialect
    .keyRemarks(checkpoint.config)
    .filter(({ rule }) => rule === "config-key-unknown" || rule === "config-precision")
    .map(({ message }) => message);
}
