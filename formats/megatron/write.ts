/** Places a legacy checkpoint of Megatron-LM: a torch file for each rank, an imported model, as iteration 0. */
import { type Rank, tensorKey } from "../../src/core/checkpoint.ts";
import { bytesOf } from "../../src/core/dtype.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { joinCrc32 } from "../codec/crc32-join.ts";
import { writePickle } from "../codec/pickle/write.ts";
import { type Archive, archiveOf } from "../codec/torch-zip/write.ts";
import { folderPlan } from "../folder-placement.ts";
import {
  CHUNK_BYTES,
  type Placement,
  type TensorDigests,
  type WantedTensor,
  type WriteRequest,
} from "../format.ts";
import { namespace, orderedDict, pickledTensor } from "../torch-dist/pickles.ts";
import { iterationFolder, TRACKER } from "./iterations.ts";

const FOLDER = iterationFolder(0);

export function placeMegatron(wanted: WriteRequest): Placement {
  const plan = folderPlan();
  for (const { path, tensors } of filesOf(wanted)) {
    const { size, storages, gaps } = archive(wanted, tensors);
    plan.file(path, size);
    plan.inline(path, 0, gaps[0]!.bytes);
    tensors.forEach((tensor, i) => {
      plan.tensor(tensor, path, storages[i]!);
    });
    for (const { offset, bytes } of gaps.slice(1)) {
      plan.seal({ file: path, offset, size: bytes.byteLength });
    }
  }
  plan.bytes(TRACKER, Buffer.from("0"));
  for (const sidecar of wanted.sidecars) plan.sidecar(sidecar.path, sidecar);
  return plan.placement();
}

/** The directory of each archive, with the checksums of its tensors. */
export function sealMegatron(
  wanted: WriteRequest,
  sealed: ReadonlyMap<string, TensorDigests>,
): readonly Uint8Array[] {
  return filesOf(wanted).flatMap(({ tensors }) => {
    const crcs = tensors.map((tensor) => crcOf(tensor, sealed));
    return archive(wanted, tensors, crcs)
      .gaps.slice(1)
      .map(({ bytes }) => bytes);
  });
}

interface RankTensors {
  readonly path: string;
  readonly tensors: readonly WantedTensor[];
}

/** One file for each rank, in the order of ranks, with its tensors in the order of the request. */
function filesOf({ tensors, options }: WriteRequest): RankTensors[] {
  const byRank = new Map<string, WantedTensor[]>();
  for (const tensor of tensors) {
    if (tensor.rank === undefined) {
      throw new IsologitError("INTERNAL", "a tensor to be written has no rank", {
        tensor: tensor.name,
      });
    }
    const path = pathOf(tensor.rank, options.pp ?? 1);
    const existing = byRank.get(path);
    if (existing === undefined) byRank.set(path, [tensor]);
    else existing.push(tensor);
  }
  return [...byRank].sort(([a], [b]) => (a < b ? -1 : 1)).map(([path, tensors]) => ({ path, tensors }));
}

function pathOf({ tp, pp }: Rank, stages: number): string {
  const stage = stages > 1 ? `_${String(pp).padStart(3, "0")}` : "";
  return `${FOLDER}mp_rank_${String(tp).padStart(2, "0")}${stage}/model_optim_rng.pt`;
}

/** The file of one rank. The version gives the order of fused rows: group by group since 3.0. */
function archive(
  { config }: WriteRequest,
  tensors: readonly WantedTensor[],
  crcs?: readonly number[],
): Archive {
  const model = tensors.map(({ name, dtype, shape }, i) => [name, pickledTensor(dtype, shape, i)] as const);
  const pickle = writePickle({
    dict: [
      ["args", namespace(config)],
      ["checkpoint_version", { float: 3 }],
      ["iteration", 0],
      ["model", orderedDict(model)],
    ],
  });
  const storages = tensors.map(({ name, dtype, shape }) => bytesOf(dtype, shape, { tensor: name }));
  return archiveOf({ root: "model_optim_rng", pickle, storages }, crcs);
}

function crcOf(tensor: WantedTensor, sealed: ReadonlyMap<string, TensorDigests>): number {
  const { crc32 } = sealed.get(tensorKey(tensor))!; // every tensor is written before the seals
  return joinCrc32(crc32, bytesOf(tensor.dtype, tensor.shape), CHUNK_BYTES);
}
