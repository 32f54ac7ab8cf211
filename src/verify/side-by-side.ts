/** Opens two checkpoints and runs them side by side, whole or some layers, and plans the memory for it. */

import { isAddressSpaceLimited } from "../../kernels/address-space.ts";
import { createMeter } from "../../kernels/backend/meter.ts";
import { ADDRESSABLE_BYTES } from "../../kernels/backend/wasm.ts";
import type { Backend } from "../../kernels/kernel.ts";
import { decodeWeights, type LoadedModel, type ModelWithScales } from "../checkpoint/load.ts";
import { IsologitError } from "../core/errors.ts";
import { ignoreEvents, type Watch } from "../core/events.ts";
import { Sources } from "../core/read.ts";
import { mainLayers } from "../families/model.ts";
import { backendFor, memoryOf, threadsOf } from "../inference/machine.ts";
import { blockWords, partBytes } from "../inference/memory.ts";
import { createRunner, layerBytes } from "../inference/model-runner.ts";
import type { Prompt } from "../inference/prompts.ts";
import { ROUNDER_BYTES, Rounder } from "../inference/rounding.ts";
import type { WeightRounder } from "../inference/weight-bands.ts";
import { Lockstep, type LockstepOptions, type LockstepResult } from "./lockstep.ts";
import type { LockstepState } from "./lockstep-state.ts";
import type { CompareOptions } from "./options.ts";
import { DIGEST_BYTES, type EqualContent, EqualDigests } from "./pairs/equal-digests.ts";
import { PairedReading } from "./pairs/paired-reading.ts";
import { recastDtypes, roundingsFor } from "./recast-source.ts";

/** The backend of forward passes of two models. @throws NOT_AVAILABLE */
export async function pairBackend(
  a: LoadedModel,
  b: LoadedModel,
  options: CompareOptions,
): Promise<Backend & AsyncDisposable> {
  const memoryBytes = memoryOf(options) - (recastDtypes(a, b).size > 0 ? ROUNDER_BYTES : 0);
  return await backendFor({ ...options, memoryBytes });
}

/** What two runs need besides the models. */
interface LockstepRequest {
  readonly backend: Backend;
  readonly ids: readonly number[];
  readonly textTokens?: number;
  /** compare only this number of token ids from the start of the vocabulary; default all */
  readonly words?: number;
  /** roles with codes that are not the nearest ones; default none */
  readonly notNearest?: ReadonlySet<string>;
  /** nothing is recast: digest tensors that both sides store alike, if other threads can read the memory of the backend; default false */
  readonly digests?: boolean;
  /** the state after the first layers, if they have run already; default null */
  readonly begun?: LockstepState | null;
  readonly memoryBytes: number;
  readonly rounder: WeightRounder;
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

/** Nothing is rounded where nothing is recast; a rounder has a memory, and with it 10 GiB of addresses. */
const NO_ROUNDER: WeightRounder = {
  round() {
    throw new IsologitError("INTERNAL", "a weight is rounded, and nothing is recast");
  },
};

/** The request of a comparison. */
export async function lockstepRequest(
  a: LoadedModel,
  b: LoadedModel,
  options: CompareOptions,
  { ids, textTokens }: Pick<Prompt, "ids" | "textTokens">,
): Promise<Omit<LockstepRequest, "backend">> {
  const { watch = ignoreEvents, signal } = options;
  const rounder = recastDtypes(a, b).size > 0 ? await Rounder.create() : NO_ROUNDER;
  return { ids, textTokens, memoryBytes: memoryOf(options), rounder, watch, signal };
}

/** Runs both checkpoints step by step and compares every door and the logits. */
export async function runLockstep(
  a: ModelWithScales,
  b: ModelWithScales,
  request: LockstepRequest,
): Promise<LockstepResult & { readonly equal: EqualContent }> {
  const { begun = null } = request;
  const { result, equal } = await openedFor(a, b, request, true, (options) =>
    new Lockstep(options).run(begun),
  );
  return { ...result, equal };
}

/** Runs main layers of both checkpoints until `end` layers have run. @returns the state for a process that goes on */
export async function runLayersOf(
  a: ModelWithScales,
  b: ModelWithScales,
  request: LockstepRequest,
  end: number,
): Promise<LockstepState> {
  const { begun = null } = request;
  const { result } = await openedFor(a, b, request, false, (options) =>
    new Lockstep(options).runTo(end, begun),
  );
  return result;
}

/**
 * Opens the files of both checkpoints while `run` runs them.
 *
 * @param toEnd all layers run that are left: what follows may be read ahead
 */
async function openedFor<T>(
  storedA: ModelWithScales,
  storedB: ModelWithScales,
  request: LockstepRequest,
  toEnd: boolean,
  run: (options: LockstepOptions) => Promise<T>,
): Promise<{ readonly result: T; readonly equal: EqualContent }> {
  const [a, b] = [decodeWeights(storedA), decodeWeights(storedB)];
  const { backend, ids, memoryBytes, rounder, watch, signal, begun = null } = request;
  const { family } = a;
  const dims = { ...a.dims, vocab: request.words ?? a.dims.vocab };
  await using sourcesA = new Sources(a.checkpoint.store);
  await using sourcesB = new Sources(decodeWeights(storedB, { blocks: true }).checkpoint.store);
  const roundings = roundingsFor(storedA, storedB, request.notNearest ?? new Set(), sourcesB);
  await using digests = request.digests === true ? await digestsIn(backend) : undefined;
  const bytes = partBytes(memoryBytes);
  const advance = (bytes: number) => watch({ type: "advance", phase: "logits", bytes });
  const isExact = roundings.size === 0;
  const pairs = backend.memory && new PairedReading(backend, digests);
  const buffers = isExact ? 3 : 2;
  const common = { backend, tokens: ids.length, rounder, bandBytes: bytes, buffers, advance, signal };
  const runnerA = createRunner(a, {
    ...{ ...common, sources: sourcesA, roundings },
    inOrder: isExact && toEnd,
  });
  const runnerB = createRunner(b, { ...common, sources: sourcesB, roundings: new Map() });
  if (begun !== null) advance(bytesBefore(storedA, begun.layers) + bytesBefore(storedB, begun.layers));
  const result = await run({
    backend,
    forward: family.forward,
    dims,
    layers: a.layers,
    ids,
    textTokens: request.textTokens ?? 0,
    a: runnerA,
    b: runnerB,
    recast: !isExact,
    pairs,
    advance,
    blockBytes: bytes / 2,
    watch,
    signal,
  });
  const equal = (await digests?.finish()) ?? new Map(); // the digests use the memory of the runners
  runnerA.close();
  runnerB.close();
  return { result, equal };
}

/** Bytes of the weights of the first main layers. */
function bytesBefore(model: LoadedModel, layers: number): number {
  const bytes = layerBytes(model);
  return mainLayers(model)
    .slice(0, layers)
    .reduce((sum, layer) => sum + bytes.of(layer), 0);
}

/** Undefined where no other thread can read what a backend holds: on a GPU, and where addresses are limited. */
async function digestsIn(backend: Backend): Promise<EqualDigests | undefined> {
  const { memory } = backend;
  return memory === undefined || isAddressSpaceLimited()
    ? undefined
    : await EqualDigests.open(backend, memory);
}

/**
 * Peak bytes of buffers of the rung, measured by a run on a backend that only counts memory: nothing is read and nothing
 * is computed. The bytes of the tensors are not needed, so this works for a destination that does not exist yet.
 */
export async function neededBytes(
  a: LoadedModel,
  b: LoadedModel,
  options: CompareOptions,
  ids: readonly number[],
): Promise<number> {
  const meter = createMeter(threadsOf(options));
  const [scales, rounder] = [new Map(), { round() {} }];
  const { vocab } = a.dims;
  const memoryBytes = memoryOf(options);
  const words = Math.min(vocab, blockWords(partBytes(memoryBytes) / 2, ids.length)); // a block has no more token ids than this
  const request = {
    backend: meter,
    ids,
    words,
    rounder,
    memoryBytes,
    watch: ignoreEvents,
    signal: options.signal,
  };
  await runLockstep({ ...a, scaleValues: scales }, { ...b, scaleValues: scales }, request);
  return meter.peakBytes + (recastDtypes(a, b).size > 0 ? ROUNDER_BYTES : DIGEST_BYTES);
}

/** Checks that the memory is enough. @throws PLAN_MEMORY with the number of bytes that would be enough */
export async function refuseMemory(
  a: LoadedModel,
  b: LoadedModel,
  options: CompareOptions,
  ids: readonly number[],
): Promise<void> {
  const needed = await neededBytes(a, b, options, ids);
  if (needed > ADDRESSABLE_BYTES) {
    const message = `the forward passes need ${needed} bytes of buffers; WebAssembly has ${ADDRESSABLE_BYTES}`;
    throw new IsologitError("PLAN_MEMORY", message, {}, { next: "give fewer `tokens`" });
  }
  if (needed > memoryOf(options)) {
    const message = `${memoryOf(options)} bytes of buffers are allowed; the forward passes need ${needed}`;
    throw new IsologitError("PLAN_MEMORY", message);
  }
}
