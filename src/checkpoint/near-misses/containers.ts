/** Weights in containers that are not read, and archives packed by another program. */

import type { Header } from "../../../formats/codec/safetensors.ts";
import { MAX_INDEX_BYTES, parseIndex } from "../../../formats/hf/index-json.ts";
import { INDEX } from "../../../formats/hf/place.ts";
import { IsologitError } from "../../core/errors.ts";
import { readSmall } from "../../core/io.ts";
import { addressBelow, shellWord } from "./address.ts";
import { CONTENT_NAMES, type FileContent } from "./content.ts";
import type { Scene, SceneFile } from "./scene.ts";

const DOC = "docs/other-checkpoints.md";
const atTop = ({ path }: SceneFile) => !path.includes("/");

/** The command that unpacks a kind of file to standard output. */
const UNPACKERS: { readonly [K in FileContent]?: string } = {
  xz: "xz -dc",
  zstd: "zstd -dc",
  bzip2: "bzip2 -dc",
};

/** A `.nemo` is a tar file, plain or compressed with gzip. */
export async function packedArchive(scene: Scene): Promise<IsologitError | null> {
  const [only, ...more] = scene.files;
  if (only === undefined || more.length > 0) return null;
  const content = await scene.contentOf(only.path);
  const unpacker = UNPACKERS[content];
  const at = { file: only.path };
  const path = shellWord(scene.address);
  if (unpacker !== undefined) {
    const message = `this is ${CONTENT_NAMES[content]}; a .nemo archive is a tar file, plain or compressed with gzip`;
    const plain = shellWord(`${scene.address.replace(/\.[^./]+$/, "")}.unpacked.nemo`);
    return new IsologitError("FORMAT_UNKNOWN", message, at, {
      next: `unpack it with \`${unpacker} ${path} > ${plain}\`, then give ${plain}`,
    });
  }
  if (content === "zip" && /\.(nemo|zip)$/i.test(only.path)) {
    const folder = shellWord(scene.address.replace(/\.[^./]+$/, ""));
    return new IsologitError("FORMAT_UNKNOWN", "this is a zip archive; a .nemo archive is a tar file", at, {
      next: `unpack it with \`unzip ${path} -d ${folder}\`, then give ${folder}`,
    });
  }
  return null;
}

/** Files of torch.save that hold a whole model. */
const TORCH_MODEL = /^(pytorch_model|model(?!_(optim_)?rng)|consolidated)[^/]*\.(bin|pt|pth)$/;
/** Files of a model for other software than torch. */
const OTHER_SOFTWARE: readonly (readonly [name: RegExp, software: string])[] = [
  [/^(tf_model|[^/]*)\.h5$/, "TensorFlow"],
  [/^flax_model[^/]*\.msgpack$/, "Flax"],
  [/^[^/]*\.onnx(_data)?$/, "ONNX"],
  [/^(rank\d+|[^/]*)\.(engine|plan)$/, "TensorRT"],
];

/** `pytorch_model.bin` without safetensors files; an index may still name such files. */
export async function torchFilesOnly(scene: Scene): Promise<IsologitError | null> {
  const { files, address } = scene;
  if (files.some((file) => atTop(file) && file.path.endsWith(".safetensors"))) return null;
  const torch = files.filter(({ path }) => TORCH_MODEL.test(path));
  const first = torch[0];
  if (first === undefined) return otherSoftware(scene);
  const names = torch.length === 1 ? first.path : `${first.path} and ${torch.length - 1} more`;
  const lost = await lostShards(scene);
  const stale = lost === 0 ? "" : `; ${INDEX} names ${lost} files that do not exist`;
  const message = `the weights are in ${names}, pickled by torch.save; this version reads only safetensors${stale}`;
  const glob =
    torch.length === 1
      ? first.path
      : `${/^[a-z_]+/.exec(first.path)![0]}*${/\.[a-z]+$/.exec(first.path)![0]}`;
  const script = `python3 -c "import re,sys,torch,safetensors.torch as s; [s.save_file({k: v.clone() for k, v in torch.load(f, weights_only=True, map_location='cpu').items()}, re.sub(r'(pytorch_)?(model|consolidated)([^/]*)[.]\\w+$', r'model\\3.safetensors', f), {'format': 'pt'}) for f in sys.argv[1:]]" ${glob}`;
  const remove = lost === 0 ? "" : `remove ${INDEX}, and `;
  const next = `${remove}in ${shellWord(address)} run \`${script}\``;
  return new IsologitError("FORMAT_UNKNOWN", message, { file: first.path }, { next });
}

async function otherSoftware({ files }: Scene): Promise<IsologitError | null> {
  for (const [name, software] of OTHER_SOFTWARE) {
    const found = files.find(({ path }) => name.test(path));
    if (found === undefined) continue;
    const message = `this is a model for ${software}, without weights in safetensors`;
    return new IsologitError(
      "FORMAT_UNKNOWN",
      message,
      { file: found.path },
      {
        next: "give the release in safetensors, or save the model again from torch",
      },
    );
  }
  return null;
}

/** Number of files that the index of safetensors names and that do not exist. */
async function lostShards({ store, files }: Scene): Promise<number> {
  const paths = new Set(files.map(({ path }) => path));
  if (!paths.has(INDEX)) return 0;
  try {
    const index = parseIndex(await readSmall(store, INDEX, MAX_INDEX_BYTES), INDEX);
    return index.files.filter((file) => !paths.has(file)).length;
  } catch {
    return 0; // an index that cannot be read names nothing
  }
}

/** A file that is named `.safetensors` and has another content, for example that of torch.save. */
export async function misnamedFile(scene: Scene): Promise<IsologitError | null> {
  const path = scene.error.at.file;
  if (path === undefined || !path.endsWith(".safetensors") || !scene.files.some((file) => file.path === path))
    return null;
  const content = await scene.contentOf(path);
  if (content === "safetensors" || content === "other") return null;
  const torch = content === "zip" || content === "pickle";
  const what = torch
    ? `this is ${CONTENT_NAMES[content]}, as torch.save writes`
    : `this is ${CONTENT_NAMES[content]}`;
  return new IsologitError(
    "FORMAT_UNKNOWN",
    `${what}, with the name of a safetensors file`,
    { file: path },
    {
      next: torch
        ? `rename the file to pytorch_model.bin: isologit then shows how to make safetensors of ${shellWord(addressBelow(scene.address, "pytorch_model.bin"))}`
        : "fetch the file again, or rename the file according to its content",
    },
  );
}

/** Shards of `HuggingFaceStorageWriter`: each rank's file holds its part of every tensor. */
export async function shardsOfRanks(scene: Scene): Promise<IsologitError | null> {
  const weights = scene.files.filter((file) => atTop(file) && file.path.endsWith(".safetensors"));
  const first = weights[0];
  if (first === undefined || weights.length > 10_000) return null;
  const header = await scene.headerOf(first.path);
  if (header?.metadata?.DCP_SHARDING_INFO === undefined) return null;
  const ranks = new Set(weights.map(({ path }) => /^shard-(\d+)-/.exec(path)?.[1] ?? path));
  const software = "torch's HuggingFaceStorageWriter (DCP_SHARDING_INFO in its header)";
  if (ranks.size === 1) {
    if (!(await isPart(scene, header))) return null;
    const message = `the file has one rank's part of each tensor, written by ${software}; the files of the other ranks are missing`;
    return new IsologitError(
      "TENSOR_MISSING",
      message,
      { file: first.path },
      {
        next: `copy the shard-* files of all ranks into one folder, then join them as ${DOC} says (HuggingFaceStorageWriter)`,
      },
    );
  }
  const message = `the files of ${ranks.size} ranks have a part of each tensor, written by ${software}`;
  return new IsologitError(
    "UNSUPPORTED",
    message,
    { file: first.path },
    {
      next: `join the shards into one model.safetensors with the command in ${DOC} (HuggingFaceStorageWriter)`,
    },
  );
}

/** Whether a file has only a part of each tensor: a run of one rank writes whole tensors. In a part, norms are shorter than the hidden size. */
async function isPart(scene: Scene, { tensors, metadata }: Header): Promise<boolean> {
  if (/"saved_offsets"\s*:\s*\[[^\]]*[1-9]/.test(metadata?.DCP_SHARDING_INFO ?? "")) return true;
  const { hidden_size: hidden } = (await scene.jsonOf("config.json")) ?? {};
  const gain = tensors.find(
    ({ name, shape }) => /(?<!mixer)\.norm(_f)?\.weight$/.test(name) && shape.length === 1,
  );
  return typeof hidden === "number" && gain !== undefined && gain.shape[0]! < hidden;
}
