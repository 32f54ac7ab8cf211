/** A checkpoint made ready to be compared or run: its roles, its scales' values, its native form. */
import { availableParallelism } from "node:os";
import { selectBackend } from "../../kernels/backend/select.ts";
import type { Backend } from "../../kernels/define.ts";
import type { RunOptions } from "../api.ts";
import { DEFAULT_MEMORY_BYTES } from "../convert/pool.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import { Sources } from "../core/read.ts";
import { families as allFamilies } from "../families/index.ts";
import { type Matched, matchRoles } from "../families/match.ts";
import { pairScales, readScale } from "../recast/spelling.ts";
import type { Rounder, Rounding } from "./rounding.ts";
import { Side } from "./side.ts";

export interface Ready {
  readonly matched: Matched;
  /** stored tensor -> the value of its scale */
  readonly scales: ReadonlyMap<string, number>;
  /** stored scales that no forward pass reads: of activations, of the KV cache */
  readonly unreadScales: readonly string[];
}

/** The backend that a run asks for. */
export function backendFor({ backend = "auto", threads, memoryBytes }: RunOptions): Promise<Backend> {
  const chosen = {
    backend,
    threads: threads ?? availableParallelism(),
    memoryBytes: memoryBytes ?? DEFAULT_MEMORY_BYTES,
  };
  return selectBackend(chosen);
}

/** @throws what matching and pairing refuse; nothing but headers and scales is read */
export async function ready(checkpoint: Checkpoint, { families = allFamilies }: RunOptions): Promise<Ready> {
  const { scaleOf, companions } = pairScales(checkpoint.tensors);
  const matched = matchRoles(checkpoint, families, companions);
  await using sources = new Sources(checkpoint.store);
  const scales = new Map<string, number>();
  const read = new Set<string>();
  for (const [weight, { tensor }] of scaleOf) {
    scales.set(weight, await readScale(matched.tensors.get(tensor)!, sources));
    read.add(tensor);
  }
  return { matched, scales, unreadScales: [...companions].filter((name) => !read.has(name)).sort() };
}

/** Bytes of weights read at a time: long enough for disks, short enough for two a side in any budget. */
const BAND_BYTES = 8 * 1024 * 1024;

export interface Running {
  readonly backend: Backend;
  readonly sources: Sources;
  readonly tokens: number;
  readonly roundings: ReadonlyMap<string, Rounding>;
  readonly rounder: Rounder;
  readonly advance: (bytes: number) => void;
  readonly signal: AbortSignal | undefined;
}

export function sideOf({ matched, scales }: Ready, running: Running): Side {
  const { forward, id } = matched.family;
  const native = forward.natives.find(({ dialect }) => dialect === matched.dialect.id);
  if (native === undefined) {
    throw new IsologitError("UNSUPPORTED", `${id} does not run in the dialect ${matched.dialect.id} yet`);
  }
  const { dims, tensors } = matched;
  return new Side({ ...running, forward, native, dims, tensors, scaleOf: scales, bandBytes: BAND_BYTES });
}

/** @throws UNSUPPORTED, naming the layer kind, when this model's forward pass cannot run */
export function refuseUnrunnable({ family, layers }: Matched): void {
  for (const { kind, stack } of layers) if (stack === "main") family.forward.block(kind);
}
