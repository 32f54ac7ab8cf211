/**
 * Writes a checkpoint in Hugging Face form with real layer shapes and sensitised random weights: of Nemotron-H, or of the family
 * whose `model_type` the config names. Plain random weights hide errors: their state-space path hardly reaches the logits.
 */
import { mkdir, open, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { encodeHeader } from "../../formats/codec/safetensors.ts";
import { encodeIndex } from "../../formats/hf/index-json.ts";
import { bytesOf, countOf, type Shape } from "../core/dtype.ts";
import { stringifyJson } from "../core/json.ts";
import { shapeOf } from "../core/mapping/layout.ts";
import { splitMix64 } from "../core/random.ts";
import { leafRoles, tensorsWritten } from "../families/expand.ts";
import type { Family } from "../families/family.ts";
import { families as house } from "../families/index.ts";
import { modelOf } from "../families/recognise.ts";

interface Synthesis {
  /** keys of config.json that replace a preset's */
  readonly config: Readonly<Record<string, unknown>>;
  readonly seed: number;
  readonly maxShardBytes: number;
  /** tensors of one spread take their numbers from one block: as fast as the disk; default false */
  readonly repeats?: boolean;
  /** default: those of this version */
  readonly families?: readonly Family[];
}

interface SyntheticTensor {
  readonly name: string;
  readonly role: string;
  readonly dtype: "BF16";
  readonly shape: Shape;
}

/** Writes the folder. Equal arguments give equal bytes. */
export async function synthesize(
  folder: string,
  { config, seed, maxShardBytes, repeats = false, families = house }: Synthesis,
): Promise<void> {
  await writeConfig(folder, config);
  const tensors = tensorsOf(config, families);
  const noise = new Noise(seed, Math.max(...tensors.map(({ shape }) => countOf(shape))), repeats);
  const shards = split(tensors, maxShardBytes);
  for (const [i, shard] of shards.entries()) {
    const file = await open(join(folder, shardName(i, shards.length)), "w");
    let writing: Promise<unknown> = file.write(encodeHeader(shard, { format: "pt" }));
    for (const { role, shape } of shard) {
      for (const part of noise.fill(role, shape)) {
        await writing; // while this part was made, the one before was written
        writing = file.write(part);
      }
    }
    await writing;
    await file.close();
  }
  if (shards.length > 1) {
    const places = shards.flatMap((shard, i) =>
      shard.map(({ name }) => [name, shardName(i, shards.length)] as const),
    );
    const index = encodeIndex(new Map(places), bytesOfAll(tensors));
    await writeFile(join(folder, "model.safetensors.index.json"), index);
  }
}

/** As `synthesize`, in one file without a byte of the weights: all are 0, and no disk holds them. */
export async function synthesizeZeros(folder: string, config: Synthesis["config"]): Promise<void> {
  await writeConfig(folder, config);
  const tensors = tensorsOf(config, house);
  const header = encodeHeader(tensors, { format: "pt" });
  const file = await open(join(folder, shardName(0, 1)), "w");
  await file.write(header);
  await file.truncate(header.byteLength + bytesOfAll(tensors));
  await file.close();
}

/** Size of all weights of the model that a config describes. */
export const modelBytes = (config: Synthesis["config"]): number => bytesOfAll(tensorsOf(config, house));

async function writeConfig(folder: string, config: Synthesis["config"]): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, "config.json"), `${stringifyJson(wholeConfig(config))}\n`);
}

function wholeConfig(config: Synthesis["config"]): Synthesis["config"] {
  if (config.model_type !== undefined) return config;
  return { ...FIXED, num_hidden_layers: String(config.hybrid_override_pattern).length, ...config };
}

/** In the order of the file. */
function tensorsOf(config: Synthesis["config"], families: readonly Family[]): readonly SyntheticTensor[] {
  const checkpoint = {
    ...{ format: "hf", dialect: "hf", tensors: [], objects: [], sidecars: [], weightFiles: [], recasts: [] },
    ...{ config: wholeConfig(config), store: nowhere },
  };
  const model = modelOf(checkpoint, families);
  return tensorsWritten(model, model.dialect).flatMap(({ name, layout }) => {
    const { spec } = model.roles.get(leafRoles(layout)[0]!)!;
    if (model.tied && spec.tiedTo !== undefined) return [];
    return [{ name, role: spec.role, dtype: "BF16" as const, shape: shapeOf(layout) }];
  });
}

const bytesOfAll = (tensors: readonly SyntheticTensor[]): number =>
  tensors.reduce((sum, { dtype, shape }) => sum + bytesOf(dtype, shape), 0);

/** Without time_step_limit: its usual [0, Infinity] is the default, and Transformers takes `0.0` only for its zero. */
const FIXED = {
  architectures: ["NemotronHForCausalLM"],
  model_type: "nemotron_h",
  torch_dtype: "bfloat16",
  conv_kernel: 4,
  layer_norm_epsilon: 1e-5,
  mamba_hidden_act: "silu",
  mlp_hidden_act: "relu2",
  chunk_size: 256,
  use_conv_bias: true,
  tie_word_embeddings: false,
};

const nowhere = {
  url: "nowhere",
  list: async () => [],
  open: async () => {
    throw new Error("a synthetic model is not read");
  },
};

function shardName(i: number, of: number): string {
  const number = (n: number) => String(n).padStart(5, "0");
  return of === 1 ? "model.safetensors" : `model-${number(i + 1)}-of-${number(of)}.safetensors`;
}

function split(tensors: readonly SyntheticTensor[], maxBytes: number): SyntheticTensor[][] {
  const shards: SyntheticTensor[][] = [[]];
  let filled = 0;
  for (const tensor of tensors) {
    const size = bytesOf(tensor.dtype, tensor.shape);
    if (filled > 0 && filled + size > maxBytes) {
      shards.push([]);
      filled = 0;
    }
    shards.at(-1)!.push(tensor);
    filled += size;
  }
  return shards;
}

/**
 * Normal numbers are drawn once, this many at most; each tensor takes its own run of them, times its own factor. Not a power of
 * two: blocks of rows that are a multiple of this long would be equal, and a control that exchanges them would show nothing.
 */
const MAX_BLOCK = (1 << 22) - 2;
/** Elements written at a time. */
const PART = 1 << 20;

class Noise {
  readonly #words: () => bigint;
  readonly #block: Float32Array;
  readonly #repeats: boolean;
  /** the block in BF16, by the spread of its numbers; only where they repeat */
  readonly #stored = new Map<number, Uint8Array>();
  #tensors = 0;

  constructor(seed: number, largest: number, repeats: boolean) {
    this.#words = splitMix64(seed);
    this.#repeats = repeats;
    this.#block = new Float32Array(Math.min(MAX_BLOCK, 2 * largest));
    for (let i = 0; i < this.#block.length; i += 2) {
      const radius = Math.sqrt(-2 * Math.log(1 - this.#uniform()));
      const angle = 2 * Math.PI * this.#uniform();
      this.#block[i] = radius * Math.cos(angle);
      this.#block[i + 1] = radius * Math.sin(angle);
    }
  }

  /** In [0, 1), by 32 bits. */
  #uniform(): number {
    return Number(this.#words() >> 32n) / 2 ** 32;
  }

  /** A role's tensor as BF16 bytes, a part at a time, with the spread that makes it matter. */
  *fill(role: string, shape: Shape): Generator<Uint8Array> {
    const count = countOf(shape);
    const between = (lo: number, hi: number) => () => lo + (hi - lo) * this.#uniform();
    switch (role) {
      case "norm":
      case "ssm.norm":
      case "final.norm":
        return yield narrow(Float32Array.from({ length: count }, between(0.4, 1.6)));
      case "ssm.A_log":
        return yield narrow(Float32Array.from({ length: count }, () => Math.log(between(0.05, 4.05)())));
      case "ssm.dt_bias":
        return yield narrow(Float32Array.from({ length: count }, between(-1.5, 0.5)));
      default:
        yield* this.#repeats
          ? this.#repeated(count, spreadOf(role, shape))
          : this.#normal(count, spreadOf(role, shape));
    }
  }

  *#repeated(count: number, spread: number): Generator<Uint8Array> {
    const block = this.#stored.get(spread) ?? narrow(this.#block.map((value) => value * spread));
    this.#stored.set(spread, block);
    let at = (2 * ++this.#tensors * 1_000_003) % block.length;
    for (let left = 2 * count; left > 0; ) {
      const size = Math.min(left, 2 * PART, block.length - at);
      yield block.subarray(at, at + size);
      left -= size;
      at = (at + size) % block.length;
    }
  }

  *#normal(count: number, spread: number): Generator<Uint8Array> {
    const factor = spread * (0.9 + 0.2 * this.#uniform());
    const block = this.#block;
    let at = (++this.#tensors * 1_000_003) % block.length;
    const part = new Float32Array(Math.min(PART, count));
    for (let done = 0; done < count; done += PART) {
      const size = Math.min(PART, count - done);
      for (let filled = 0; filled < size; ) {
        const run = Math.min(size - filled, block.length - at);
        for (let i = 0; i < run; i++) part[filled + i] = block[at + i]! * factor;
        filled += run;
        at = (at + run) % block.length;
      }
      yield narrow(part.subarray(0, size));
    }
  }
}

function spreadOf(role: string, shape: Shape): number {
  switch (role) {
    case "embed":
      return 1;
    case "ssm.conv":
      return 0.7;
    case "ssm.conv.bias":
    case "ssm.D":
      return 0.3;
    default:
      return 1.3 / Math.sqrt(shape[1] ?? 1);
  }
}

/** F32 to BF16 bytes, ties to even; none is NaN. */
function narrow(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const out = new Uint16Array(values.length);
  for (let i = 0; i < out.length; i++) out[i] = (bits[i]! + 0x7fff + ((bits[i]! >>> 16) & 1)) >>> 16;
  return new Uint8Array(out.buffer);
}
