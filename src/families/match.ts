/**
 * Matches the tensors of a checkpoint with the roles of its model: every stored tensor must match a rule, every role
 * must be stored completely, and every shape must agree.
 */
import { type Checkpoint, type Tensor, tensorKey } from "../core/checkpoint.ts";
import { countOf, sameShape } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { canonicalJson } from "../core/hash.ts";
import { movesOf, shapeOf } from "../core/mapping/layout.ts";
import { findCoverFault, invertMoves, type Move } from "../core/mapping/moves.ts";
import { type ExpectedTensor, leafRoles, tensorsRead } from "./expand.ts";
import type { Family } from "./family.ts";
import { causesOf, causeText, misfitOf, type ShapeMisfit } from "./likely-cause.ts";
import type { MatchedModel, RecognisedModel, Replica, Role, TransformedTensor } from "./model.ts";
import { droppedFrom, modelOf } from "./recognise.ts";

/**
 * The model of a checkpoint, with the location of each role in its tensors.
 *
 * @param scaleTensors names of stored scales, which belong to weights and are not roles
 * @throws TENSOR_UNKNOWN, TENSOR_MISSING, SHAPE_MISMATCH, which name the tensors
 */
export function matchRoles(
  checkpoint: Checkpoint,
  families: readonly Family[],
  scaleTensors: ReadonlySet<string>,
): MatchedModel {
  const model = modelOf(checkpoint, families);
  const tensors = new Map(checkpoint.tensors.map((tensor) => [tensorKey(tensor), tensor]));
  const dropped = droppedFrom(checkpoint, model.dialect);
  const left = new Set(tensors.keys());
  for (const { names } of dropped) for (const name of names) left.delete(name);
  const matcher = new Matcher(tensors, model);
  for (const expected of tensorsRead(model, model.dialect, model.parallelism)) matcher.match(expected);
  refuseMisfits(matcher.misfits, model);
  if (model.tied) matcher.tie();

  const unknown = [...left].filter(
    (key) => !matcher.holds.has(key) && !scaleTensors.has(tensors.get(key)!.name),
  );
  const missing = matcher.missing();
  if (missing.length > 0)
    throw namesError("TENSOR_MISSING", "the config asks for", missing, missingText(unknown));
  if (unknown.length > 0)
    throw namesError("TENSOR_UNKNOWN", "the weights hold", unknown, "which the config does not describe");
  for (const role of model.roles.values()) refuseUncovered(role, matcher.roleSources.get(role.key) ?? []);
  const { roleSources, holds, transformed, replicas } = matcher;
  return { ...model, checkpoint, tensors, roleSources, holds, transformed, replicas, dropped };
}

/** Finds the expected tensors by their names and collects what each stored tensor holds. */
class Matcher {
  readonly roleSources = new Map<string, Move[]>();
  readonly holds = new Map<string, readonly string[]>();
  readonly transformed = new Map<string, TransformedTensor>();
  readonly replicas: Replica[] = [];
  readonly misfits: ShapeMisfit[] = [];
  readonly #model: RecognisedModel;
  readonly #tensors: ReadonlyMap<string, Tensor>;
  readonly #ranks: ReadonlySet<string>;
  readonly #absent: ExpectedTensor[] = [];
  /** by content: a tensor with the same content on another rank is its replica */
  readonly #first = new Map<string, string>();
  readonly #held = new Set<string>();

  constructor(tensors: ReadonlyMap<string, Tensor>, model: RecognisedModel) {
    this.#model = model;
    this.#tensors = tensors;
    this.#ranks = new Set([...tensors.values()].map(rankOf));
  }

  match(expected: ExpectedTensor): void {
    const { name, also, rank, layout } = expected;
    // Tensor and expert parallel ranks may share processes: not every combination of the two exists.
    if (!this.#ranks.has(rankOf(expected))) return;
    const keys = [name, ...also].map((spelling) => tensorKey({ name: spelling, ...(rank && { rank }) }));
    const key = keys.find((candidate) => this.#tensors.has(candidate));
    if (key === undefined) {
      this.#absent.push(expected);
      return;
    }
    const tensor = this.#tensors.get(key)!;
    if (!sameShape(tensor.shape, shapeOf(layout))) this.misfits.push(misfitOf(tensor, layout, this.#model));
    const leaves = leafRoles(layout);
    this.holds.set(key, leaves);
    const { stores, times } = expected;
    if (stores !== undefined) this.transformed.set(key, { tensor, stores });
    if (times !== undefined) this.transformed.set(key, { tensor, times });
    if (expected.copy && rank === undefined) {
      this.#copy(key, leaves[0]!);
      return;
    }
    for (const leaf of leaves) this.#held.add(`${rankOf(expected)} ${leaf}`);
    if (rank !== undefined) {
      const content = canonicalJson(layout);
      const first = this.#first.get(content);
      if (first !== undefined) {
        this.replicas.push({ tensor: key, of: first });
        return;
      }
      this.#first.set(content, key);
    }
    for (const [role, moves] of invertMoves(movesOf(layout), key)) {
      const known = this.roleSources.get(role);
      if (known === undefined) this.roleSources.set(role, [...moves]);
      else known.push(...moves);
    }
  }

  /** A copy must equal the tensor that holds its role; if there is none, `missing` names it. */
  #copy(tensor: string, role: string): void {
    const of = this.roleSources.get(role)?.[0]?.of;
    if (of === undefined || of === null) return;
    const isHead = this.#model.roles.get(role)?.spec.kind === "embedding"; // a copy of the token table
    this.replicas.push({ tensor, of, ...(isHead ? { tied: true } : { twice: true }) });
  }

  /** A tied role that is not stored gets the tensor of the other role. If both are stored, they must be equal. */
  tie(): void {
    const { roles } = this.#model;
    for (const { key, spec } of roles.values()) {
      const shared = spec.tiedTo === undefined ? undefined : this.roleSources.get(spec.tiedTo);
      if (shared === undefined) continue;
      const own = this.roleSources.get(key)?.[0]?.of;
      if (own === undefined) {
        this.roleSources.set(key, shared);
        this.#held.add(` ${key}`);
      } else this.#mustEqual(this.#tensors.get(own!)!, this.#tensors.get(shared[0]!.of!)!);
    }
  }

  #mustEqual(tensor: Tensor, other: Tensor): void {
    if (tensor.dtype !== other.dtype)
      throw tiedError(tensor.name, other.name, `it is ${tensor.dtype}, not ${other.dtype}`);
    this.replicas.push({ tensor: tensorKey(tensor), of: tensorKey(other), tied: true });
  }

  /** Expected tensors that do not exist, except those whose roles the same rank holds in other tensors. */
  missing(): readonly string[] {
    return this.#absent
      .filter(({ readOnly }) => !readOnly)
      .filter(
        (expected) =>
          !leafRoles(expected.layout).every((leaf) => this.#held.has(`${rankOf(expected)} ${leaf}`)),
      )
      .map(({ name, rank }) => tensorKey({ name, ...(rank && { rank }) }));
  }
}

/** The error for a replica that differs from its original in element `index`. */
export function replicaError({ tensor, of, tied, twice }: Replica, index: number): IsologitError {
  const at = { tensor, index };
  if (tied === true) return tiedError(tensor, of, `element ${index} differs`);
  const next =
    "training changed only one of the two: keep this checkpoint in its format, because no other can say both";
  return new IsologitError(
    "REPLICA_DIFFERS",
    `it differs from ${of}, of which it must be a copy`,
    at,
    twice === true ? { next } : {},
  );
}

/** Loaders differ in which of the two tensors they use, so that neither can be called the model. */
function tiedError(tensor: string, of: string, found: string): IsologitError {
  const message = `tie_word_embeddings is true, but ${tensor} differs from ${of} (${found}): Transformers uses the stored head, vLLM and NVIDIA's code use the token table`;
  const next = `set tie_word_embeddings to false to keep ${tensor}, or remove it to make ${of} the head`;
  return new IsologitError("REPLICA_DIFFERS", message, { tensor }, { next });
}

function rankOf({ rank }: Pick<Tensor, "rank">): string {
  return rank === undefined ? "" : tensorKey({ name: "", rank });
}

function refuseUncovered({ key, shape }: Role, moves: readonly Move[]): void {
  const covered = findCoverFault(moves, countOf(shape));
  if (covered.ok) return;
  const from = moves[0]?.of;
  const at = from === undefined || from === null ? {} : { tensor: from };
  if (covered.fault === "missing") {
    const message = `no rank holds element ${covered.at} of ${key}; a rank's file is missing`;
    throw new IsologitError("TENSOR_MISSING", message, at);
  }
  throw new IsologitError("TENSOR_UNKNOWN", `element ${covered.at} of ${key} is stored twice`, at);
}

/** @throws SHAPE_MISMATCH for the first misfit, with the number of the config that explains all misfits, if there is one */
function refuseMisfits(misfits: readonly ShapeMisfit[], model: RecognisedModel): void {
  const [first] = misfits;
  if (first === undefined) return;
  const { tensor, asked } = first;
  const file = tensor.pieces[0]?.file;
  const causes = causesOf(model, misfits);
  const [cause, ...others] = causes;
  const found = `it is [${tensor.shape.join(", ")}] in the file; this config asks for [${asked.join(", ")}]`;
  throw new IsologitError(
    "SHAPE_MISMATCH",
    found + causeText(causes),
    { tensor: tensor.name, ...(file !== undefined && { file }) },
    cause === undefined || others.length > 0
      ? {}
      : { next: `set ${cause.key} to ${cause.fits} in the config, if that is how the model was trained` },
  );
}

/** A tensor with an unknown name may be the missing tensor. */
function missingText(unknown: readonly string[]): string {
  return unknown.length === 0
    ? "which the weights do not contain"
    : `which the weights do not contain; they hold ${namesText(unknown)} instead`;
}

function namesError(
  code: "TENSOR_MISSING" | "TENSOR_UNKNOWN",
  before: string,
  names: readonly string[],
  after: string,
) {
  return new IsologitError(code, `${before} ${namesText(names)}, ${after}`, { tensor: names[0]! });
}

function namesText(names: readonly string[]): string {
  return `${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}`;
}
