/** Tensors of a destination that store the products of values with multipliers of the model: computed from the source when they are read. */
import { multiply, returns } from "../../checkpoint/multiplied-values.ts";
import { type Tensor, tensorKey } from "../../core/checkpoint.ts";
import { bytesOf, type FloatDType, isFileKind, isFloat, recastKind, widthOf } from "../../core/dtype.ts";
import { IsologitError } from "../../core/errors.ts";
import { widen } from "../../core/float.ts";
import { readElements, roleSource } from "../../core/gather.ts";
import type { ByteSource } from "../../core/io.ts";
import { Sources } from "../../core/read.ts";
import type { ElementFactor, MatchedModel } from "../../families/model.ts";
import type { Policy } from "../../quantization/policy.ts";
import type { PlannedWeight } from "../planned-weights.ts";
import type { Job } from "../types.ts";

/** Begins the names of the computed files; no path of a store begins with it. */
const PREFIX = "/products:";

/** Elements that are computed at a time. */
const PART_ELEMENTS = 1 << 20;

/** A job whose elements are multiplied after they are read. */
interface Multiplied {
  readonly job: Job;
  readonly dtype: FloatDType;
  readonly times: readonly ElementFactor[];
}

/**
 * @throws PLAN_IMPOSSIBLE for another type than F32, and for values that their products would not give back
 */
export function multiplyTensors<M extends MatchedModel>(
  source: M,
  weights: readonly PlannedWeight[],
  jobs: readonly Job[],
  policy: Policy,
): { readonly source: M; readonly jobs: readonly Job[] } {
  const factors = new Map(
    weights.flatMap(({ name, times }) => (times === undefined ? [] : [[name, times] as const])),
  );
  if (factors.size === 0) return { source, jobs };
  refuseOtherType(policy);
  const products = new Map<string, Multiplied>();
  const multiplied = jobs.map((job) => {
    const times = factors.get(job.tensor.name);
    if (times === undefined) return job;
    const dtype = typeOfValues(source, job);
    if (!returns(dtype, times)) throw lostError(job.tensor.name, dtype);
    const key = PREFIX + tensorKey(job.tensor);
    products.set(key, { job, dtype: floatType(job), times });
    return {
      tensor: { ...job.tensor, recast: { kind: recastKind("F32"), sourceDtype: dtype } },
      role: job.role,
      why: "its software wants it multiplied by the multipliers of the model, and F32 gives the values back",
      multiplied: job.elementSource,
      elementSource: roleSource(key, job.count, new Map([[key, wholeOf(key, job.count)]])),
      sourceDtype: "F32" as const,
      count: job.count,
    };
  });
  const computed = [...products].map(([key, { job }]) => [key, productTensor(key, job)] as const);
  const { store } = source.checkpoint;
  const open = async (path: string): Promise<ByteSource> => {
    const found = products.get(path);
    return found === undefined ? await store.open(path) : new ProductSource(source, found);
  };
  return {
    source: {
      ...source,
      tensors: new Map([...source.tensors, ...computed]),
      checkpoint: { ...source.checkpoint, store: { ...store, open } },
    },
    jobs: multiplied,
  };
}

const wholeOf = (key: string, count: number) => [
  { of: key, size: [count], fromAt: 0, from: [1], toAt: 0, to: [1] },
];

function productTensor(key: string, { tensor }: Job): Tensor {
  const { shape } = tensor;
  return {
    ...{ name: key, dtype: "F32", shape },
    pieces: [{ file: key, offset: 0, start: shape.map(() => 0), shape }],
  };
}

/** The type of a job's values: that of its elements, or the one that they had before an earlier product. */
function typeOfValues(source: MatchedModel, job: Job): FloatDType {
  const [move] = job.role === null ? [] : (source.roleSources.get(job.role.key) ?? []);
  return source.checkpoint.widened?.get(move?.of ?? "") ?? floatType(job);
}

function floatType({ sourceDtype, tensor }: Job): FloatDType {
  if (isFloat(sourceDtype)) return sourceDtype;
  throw lostError(tensor.name, sourceDtype);
}

function refuseOtherType({ to, kind, recipe }: Policy): void {
  if (!isFileKind(kind) && recipe?.types === undefined && (to === null || to === "F32")) return;
  const message = `weights are multiplied by the multipliers of the model in its files, and only F32 gives them back; ${kind ?? to} was asked for`;
  const next = "leave `dtype` out, and quantise the file with llama-quantize";
  throw new IsologitError("PLAN_IMPOSSIBLE", message, {}, { next });
}

function lostError(tensor: string, dtype: string): IsologitError {
  const message = `it is ${dtype}: multiplied by the multipliers of the model and rounded to F32, its values would not come back`;
  const next = "convert the source to hf with `dtype` bf16 first";
  return new IsologitError("PLAN_IMPOSSIBLE", message, { tensor }, { next });
}

/** A file of products. The memory is that of the read range. */
class ProductSource implements ByteSource {
  readonly url: string;
  readonly size: number;
  readonly #source: MatchedModel;
  readonly #sources: Sources;
  readonly #multiplied: Multiplied;

  constructor(source: MatchedModel, multiplied: Multiplied) {
    const { store } = source.checkpoint;
    this.url = store.url;
    this.size = bytesOf("F32", [multiplied.job.count]);
    this.#source = source;
    this.#sources = new Sources(store);
    this.#multiplied = multiplied;
  }

  async readInto(target: Uint8Array, offset: number, signal?: AbortSignal): Promise<void> {
    const { job, dtype, times } = this.#multiplied;
    const [first, end] = [offset / 4, (offset + target.byteLength) / 4];
    const width = widthOf(dtype);
    for (let lo = first; lo < end; lo += PART_ELEMENTS) {
      const hi = Math.min(end, lo + PART_ELEMENTS);
      const bytes = new Uint8Array((hi - lo) * width);
      const { tensors } = this.#source;
      await readElements(job.elementSource, { lo, hi }, tensors, width, this.#sources, bytes, signal);
      const values = widen(dtype, bytes);
      multiply(values, lo, times);
      target.set(new Uint8Array(values.buffer, values.byteOffset, values.byteLength), (lo - first) * 4);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sources[Symbol.asyncDispose]();
  }
}
