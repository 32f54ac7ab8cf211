/** Options that most functions of the library take. */
import type { Event } from "../core/events.ts";
import type { PluginOptions } from "../plugins/plugin.ts";

/** Options of every long function. */
export interface RunOptions extends PluginOptions {
  /** largest size of all buffers, bytes; default 1 GiB */
  readonly memoryBytes?: number;
  /** worker threads; default: one for each core */
  readonly threads?: number;
  /** default "auto": a hardware GPU if the machine has one, else WASM */
  readonly backend?: "auto" | "webgpu" | "wasm";
  /** part of the name of the GPU to use; upper and lower case are equal */
  readonly device?: string;
  /** receives progress, warnings and results of rungs */
  readonly watch?: (event: Event) => void;
  readonly signal?: AbortSignal;
}

/** Facts about a checkpoint that the user gives. */
export interface SourceOptions {
  /** size of the vocabulary, if the checkpoint has only the number of padded rows */
  readonly vocabSize?: number;
  /** address of another checkpoint of the same architecture, for missing settings and side files */
  readonly like?: string;
  /** iteration to read in a folder of several; default: the latest */
  readonly iteration?: number;
}
