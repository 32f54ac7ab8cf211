/** Tensors of a destination that store a function of their role's values. They are small, so their bytes are known before the run. */
import type { WantedTensor } from "../../formats/format.ts";
import { type StoredFunction, storedFunction, VALUES_KEY } from "../checkpoint/stored-functions.ts";
import { type Tensor, tensorKey } from "../core/checkpoint.ts";
import { bitsOf, bytesOf, countOf, isFloat } from "../core/dtype.ts";
import { IsologitError } from "../core/errors.ts";
import { widen } from "../core/float.ts";
import { gatherExtents } from "../core/gather.ts";
import { extentsOf, Sources } from "../core/read.ts";
import type { MatchedModel, TransformedTensor } from "../families/model.ts";
import type { PlannedWeight } from "./planned-weights.ts";
import type { Job } from "./types.ts";

interface TransformedTensors {
  /** the other jobs */
  readonly jobs: readonly Job[];
  /** bytes of the transformed tensors, by `tensorKey` */
  readonly known: ReadonlyMap<string, Uint8Array>;
  /** config keys with the values that do not follow from what is stored */
  readonly keys: Readonly<Record<string, readonly number[]>>;
}

/**
 * Computes the functions of roles that the destination stores in place of their values. Where the source stores the same
 * function, its bits are copied.
 *
 * @throws NON_FINITE for a value whose function is no number that the tensor can hold, and read errors
 */
export async function transformTensors(
  source: MatchedModel,
  weights: readonly PlannedWeight[],
  jobs: readonly Job[],
): Promise<TransformedTensors> {
  const functions = new Map(
    weights.flatMap(({ name, stores }) => (stores === undefined ? [] : [[name, stores] as const])),
  );
  const isTransformed = ({ tensor }: Job) => functions.has(tensor.name);
  const known = new Map<string, Uint8Array>();
  const keys: Record<string, readonly number[]> = {};
  if (functions.size === 0) return { jobs, known, keys };
  await using sources = new Sources(source.checkpoint.store);
  for (const job of jobs.filter(isTransformed)) {
    const name = functions.get(job.tensor.name)!;
    const stored = tensorOfRole(source, job);
    const computed = storedFunction(name);
    const values = await readValues(source, job, sources);
    const numbers =
      stored !== undefined && "stores" in stored && stored.stores === name
        ? await readNumbers(stored.tensor, sources)
        : values.map(computed.of);
    refuseImpossible(numbers, computed, job.tensor);
    known.set(tensorKey(job.tensor), new Uint8Array(numbers.buffer));
    if (values.some((value, i) => !Object.is(computed.valueOf(numbers[i]!), value)))
      keys[VALUES_KEY + job.tensor.name] = [...values];
  }
  return { jobs: jobs.filter((job) => !isTransformed(job)), known, keys };
}

/** The tensor of the source that stores a function of the values of a job's role. */
function tensorOfRole(source: MatchedModel, { role }: Job): TransformedTensor | undefined {
  const [move] = role === null ? [] : (source.roleSources.get(role.key) ?? []);
  return source.transformed.get(move?.of ?? "");
}

async function readNumbers(tensor: Tensor, sources: Sources): Promise<Float32Array> {
  const bytes = new Uint8Array(bytesOf("F32", tensor.shape)); // functions are F32
  await sources.read(extentsOf(tensor, 0, countOf(tensor.shape)), bytes);
  return new Float32Array(bytes.buffer);
}

async function readValues({ tensors }: MatchedModel, job: Job, sources: Sources): Promise<Float32Array> {
  const { count, elementSource, sourceDtype } = job;
  if (!isFloat(sourceDtype))
    throw new IsologitError("UNSUPPORTED", `${sourceDtype} cannot be widened`, { tensor: job.tensor.name });
  const width = bitsOf(sourceDtype) / 8;
  const bytes = new Uint8Array(count * width);
  await sources.read(gatherExtents(elementSource, { lo: 0, hi: count }, tensors, width), bytes);
  return widen(sourceDtype, bytes);
}

function refuseImpossible(
  numbers: Float32Array,
  { isPossible, text, rule }: StoredFunction,
  { name }: WantedTensor,
): void {
  const index = numbers.findIndex((number) => !isPossible(number));
  if (index < 0) return;
  const message = `${text} is ${numbers[index]}; software that loads it wants ${rule}`;
  throw new IsologitError("NON_FINITE", message, { tensor: name, index });
}
