/** Options that most functions of the library take. */
import type { Format } from "../../formats/format.ts";
import type { Event } from "../core/events.ts";
import type { Family } from "../families/family.ts";

/** What every long function takes. */
export interface RunOptions {
  readonly formats?: readonly Format[];
  readonly families?: readonly Family[];
  /** ceiling for buffers, bytes; default 1 GiB */
  readonly memoryBytes?: number;
  /** default: one a core */
  readonly threads?: number;
  /** default "auto": a hardware GPU where there is one, else WASM */
  readonly backend?: "auto" | "webgpu" | "wasm";
  /** part of the name of the GPU to use, in any case */
  readonly device?: string;
  readonly watch?: (event: Event) => void;
  readonly signal?: AbortSignal;
}

/** What the one who asks knows of a checkpoint, or wants of it. */
export interface SourceOptions {
  /** true size of the vocabulary, where the checkpoint knows only padded rows */
  readonly vocabSize?: number;
  /** address of another checkpoint of such a model: config and side files for what this one does not say */
  readonly like?: string;
  /** of a folder with several: which iteration; default the latest */
  readonly iteration?: number;
}
