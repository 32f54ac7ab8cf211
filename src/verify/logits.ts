/** `logits`: one forward pass, written as safetensors, the logits a block of words at a time. */
import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import type { Backend } from "../../kernels/define.ts";
import type { LogitsOptions, LogitsReport } from "../api.ts";
import { bytesOf, type DType, type Shape } from "../core/dtype.ts";
import { fromSystem, IsologitError } from "../core/errors.ts";
import { unwatched } from "../core/events.ts";
import { Sources } from "../core/read.ts";
import type { Matched } from "../families/match.ts";
import { exists } from "../io/staged.ts";
import { openCheckpoint } from "../open.ts";
import { Dealing } from "./dealing.ts";
import { blockWords } from "./lockstep.ts";
import { partBytes } from "./logits-rung.ts";
import { promptIds } from "./prompts.ts";
import { Rounder } from "./rounding.ts";
import type { Side } from "./side.ts";
import { backendFor, memoryOf, type Ready, ready, refuseUnrunnable, runBytes, sideOf } from "./sides.ts";
import { ends, Streams } from "./streams.ts";

/**
 * Runs `source` once and writes `input_ids` [T] I64, `logits` [T, vocab] F32 and, if asked, the residual stream
 * `hidden.0` (embedding) to `hidden.N` (after layer N - 1) and `hidden.norm_f`, [T, hidden] F32, and the experts that
 * each token of layer L chose, `experts.L` [T, chosen a token] I32, ascending.
 *
 * @throws DESTINATION_EXISTS, UNSUPPORTED, and what opening and matching refuse; no file is left then
 */
export async function logits(source: string, options: LogitsOptions): Promise<LogitsReport> {
  const started = performance.now();
  const checkpoint = await openCheckpoint(source, options.formats, options);
  const model = await ready(checkpoint, options);
  refuseUnrunnable(model);
  const { vocab } = model.matched.dims;
  const ids = promptIds(options, vocab!);
  if (options.overwrite !== true && (await exists(options.out))) {
    throw new IsologitError("DESTINATION_EXISTS", "the file exists already", { file: options.out });
  }
  await using backend = await backendFor(options);

  const inner = options.hidden === true ? innerTensors(model.matched, ids.length) : [];
  const partial = `${options.out}.partial`;
  try {
    const out = await SafetensorsFile.create(partial, [
      { name: "input_ids", dtype: "I64", shape: [ids.length] },
      ...inner,
      { name: "logits", dtype: "F32", shape: [ids.length, vocab!] },
    ]);
    try {
      await out.write("input_ids", 0, new Uint8Array(BigInt64Array.from(ids, BigInt).buffer));
      await pass(model, ids, backend, new Set(inner.map(({ name }) => name)), out, options);
    } finally {
      await out.close();
    }
    await rename(partial, options.out);
  } catch (error) {
    await rm(partial, { force: true });
    throw fromSystem(error, { file: options.out });
  }
  const seconds = (performance.now() - started) / 1000;
  return {
    backend: backend.id,
    device: backend.device,
    tokens: ids.length,
    vocab: vocab!,
    seconds,
    out: options.out,
  };
}

interface Described {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: Shape;
}

/** What is written of a pass besides its logits. */
function innerTensors({ layers, family, dims }: Matched, tokens: number): readonly Described[] {
  const main = layers.filter(({ stack }) => stack === "main");
  const hidden = [...Array(main.length + 1).keys(), "norm_f"].map((n) => ({
    name: `hidden.${n}`,
    dtype: "F32" as const,
    shape: [tokens, dims.hidden!],
  }));
  const experts = main.flatMap(({ index, kind }) =>
    family.forward.block(kind, dims).flatMap((stage) =>
      stage.op === "kernel" && stage.choice !== undefined
        ? [
            {
              name: `experts.${index}`,
              dtype: "I32" as const,
              shape: [tokens, stage.choice(dims).perToken],
            },
          ]
        : [],
    ),
  );
  return [...hidden, ...experts];
}

async function pass(
  model: Ready,
  ids: readonly number[],
  backend: Backend,
  wanted: ReadonlySet<string>,
  out: SafetensorsFile,
  options: LogitsOptions,
): Promise<void> {
  const { watch = unwatched, signal } = options;
  const bandBytes = partBytes(memoryOf(options));
  const { matched } = model;
  const { family, dims, layers } = matched;
  await using sources = new Sources(matched.checkpoint.store);
  watch({ type: "phase", phase: "logits", totalBytes: runBytes(matched, ["main"]) });
  const advance = (bytes: number) => watch({ type: "advance", phase: "logits", bytes });
  const running = {
    backend,
    sources,
    tokens: ids.length,
    roundings: new Map(),
    rounder: await Rounder.create(),
    bandBytes,
    advance,
    signal,
  };
  const side = sideOf(model, running);
  const widths = family.forward.streams(dims);
  let dealing: Dealing | undefined;
  const rowsOf = (name: string) => (family.forward.dealt.includes(name) ? dealing!.rows : ids.length);
  const streams = new Streams(backend, (name) => rowsOf(name) * widths[name]!);
  const keep = async (name: string, stream: string) => {
    if (wanted.has(name)) await out.write(name, 0, bytesOfF32(await streams.view(stream)));
  };

  streams.make(["residual"]);
  await side.embed(ids, "stored", streams.regions.get("residual")!);
  await keep("hidden.0", "residual");
  for (const layer of layers) {
    if (layer.stack !== "main") continue;
    const { index, kind } = layer;
    const stages = family.forward.block(kind, dims);
    const place = side.layer(layer);
    for (const [i, stage] of stages.entries()) {
      signal?.throwIfAborted();
      streams.make(ends(stage).makes);
      await side.run(stage, place, [streams.set()], dealing);
      if (stage.op === "kernel" && stage.choice !== undefined) {
        const chosen = await streams.view(stage.to);
        dealing = await Dealing.of(backend, chosen, ids.length, stage.choice(dims), false);
        if (wanted.has(`experts.${index}`)) {
          await out.write(`experts.${index}`, 0, new Uint8Array(Int32Array.from(chosen).buffer));
        }
      }
      streams.releaseUnused(stages, i);
    }
    await streams.addResidual();
    side.forget();
    dealing?.release();
    dealing = undefined;
    await keep(`hidden.${index + 1}`, "residual");
    watch({ type: "layer", layer: index, of: layers.length, kind });
  }
  for (const stage of family.forward.head.slice(0, -1)) {
    streams.make(ends(stage).makes);
    await side.run(stage, side.head, [streams.set()]);
  }
  const from = ends(family.forward.head.at(-1)!).reads[0]!;
  await keep("hidden.norm_f", from);
  await writeLogits(side, backend, streams, from, ids.length, dims.vocab!, bandBytes / 2, out);
  streams.releaseAll();
  side.close();
}

async function writeLogits(
  side: Side,
  backend: Backend,
  streams: Streams,
  from: string,
  tokens: number,
  vocab: number,
  blockBytes: number,
  out: SafetensorsFile,
): Promise<void> {
  const width = Math.min(vocab, blockWords(blockBytes, tokens));
  const block = backend.allocate(4 * tokens * width);
  for (let lo = 0; lo < vocab; lo += width) {
    const count = Math.min(width, vocab - lo);
    await side.logits(from, lo, lo + count, [streams.set()], [block]);
    const values = await backend.view(block, tokens * count);
    for (let t = 0; t < tokens; t++) {
      await out.write(
        "logits",
        4 * (t * vocab + lo),
        bytesOfF32(values.subarray(t * count, (t + 1) * count)),
      );
    }
  }
  backend.release(block);
}

function bytesOfF32(values: Float32Array): Uint8Array {
  return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
}

/** A safetensors file whose tensors are filled in any order. */
class SafetensorsFile {
  readonly #file: FileHandle;
  readonly #offsets: ReadonlyMap<string, number>;

  private constructor(file: FileHandle, offsets: ReadonlyMap<string, number>) {
    this.#file = file;
    this.#offsets = offsets;
  }

  static async create(path: string, tensors: readonly Described[]): Promise<SafetensorsFile> {
    const header = encodeHeader(tensors, { format: "pt" });
    const offsets = new Map<string, number>();
    let end = header.byteLength;
    for (const { name, dtype, shape } of tensors) {
      offsets.set(name, end);
      end += bytesOf(dtype, shape);
    }
    const file = await open(path, "w");
    await file.write(header);
    await file.truncate(end);
    return new SafetensorsFile(file, offsets);
  }

  /** `at` is in bytes from the tensor's start. */
  async write(name: string, at: number, bytes: Uint8Array): Promise<void> {
    const offset = this.#offsets.get(name)! + at;
    for (let done = 0; done < bytes.byteLength; ) {
      done += (await this.#file.write(bytes, done, bytes.byteLength - done, offset + done)).bytesWritten;
    }
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
