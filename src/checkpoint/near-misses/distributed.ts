/** Folders of torch.distributed.checkpoint that another writer than Megatron's made, or whose index is missing. */
import { IsologitError } from "../../core/errors.ts";
import { shellWord } from "./address.ts";
import type { Scene } from "./scene.ts";

const DOC = "docs/other-checkpoints.md";
const DISTCP = /^(.*\/)?[^/]+\.distcp$/;
/** Names that a model has in Hugging Face's code, with any prefix. */
const HF_NAME =
  /(^|\.)(backbone\.(layers\.\d+|embeddings?|norm_f)|model\.(layers\.\d+|embed_tokens)|lm_head)\./;

/** `cp folder/* …` does not copy `.metadata`: the pattern matches no name that begins with a dot. */
export function lostIndex({ files, address }: Scene): IsologitError | null {
  const paths = new Set(files.map(({ path }) => path));
  const orphans = files.filter(({ path }) => {
    const folder = DISTCP.exec(path);
    return folder !== null && !paths.has(`${folder[1] ?? ""}.metadata`);
  });
  const [first] = orphans;
  if (first === undefined) return null;
  const folder = DISTCP.exec(first.path)?.[1] ?? "";
  const beside = orphans.filter(({ path }) => (DISTCP.exec(path)?.[1] ?? "") === folder).length;
  const message = `${folder}.metadata is missing, the index of ${beside === 1 ? "the .distcp file" : `the ${beside} .distcp files`} here; \`cp ${folder || "folder/"}*\` does not copy it`;
  const target = shellWord(`${address.replace(/\/+$/, "")}/${folder}`);
  return new IsologitError(
    "TENSOR_MISSING",
    message,
    { file: first.path },
    {
      next: `copy .metadata from the place where the checkpoint was written: \`cp FROM/${folder}.metadata ${target}\``,
    },
  );
}

/** `FileSystemWriter(serialization_format=SAFETENSORS)`: a file is one safetensors container, not a run of archives. */
export async function safetensorsEntries(scene: Scene): Promise<IsologitError | null> {
  const first = scene.files.find(({ path }) => DISTCP.test(path));
  if (first === undefined || (await scene.contentOf(first.path)) !== "safetensors") return null;
  const message =
    "the entries of this file are in safetensors (FileSystemWriter with SerializationFormat.SAFETENSORS), not archives of torch.save";
  return new IsologitError(
    "UNSUPPORTED",
    message,
    { file: first.path },
    {
      next: `write the checkpoint again in torch's own serialization with the command in ${DOC} (entries in safetensors)`,
    },
  );
}

/** A model of FSDP or NeMo AutoModel: the names are Hugging Face's, the container is torch's. */
export function huggingFaceNames({ checkpoint }: Scene): IsologitError | null {
  if (checkpoint === undefined || checkpoint.dialect !== "megatron") return null;
  const named = checkpoint.tensors.filter(({ name }) => HF_NAME.test(name));
  return named.length === 0 || named.length < checkpoint.tensors.length / 2
    ? null
    : refuseNames(named[0]!.name, "");
}

/** @param folder of the distributed checkpoint, below the address; empty for the address itself */
export function refuseNames(tensor: string, folder: string): IsologitError {
  const where = folder === "" ? "this is" : `${folder} is`;
  const message = `${where} a distributed checkpoint of torch with Hugging Face's names; only Megatron's names are read from this container`;
  return new IsologitError(
    "UNSUPPORTED",
    message,
    { tensor, ...(folder !== "" && { file: folder }) },
    {
      next: `write model.safetensors from it with the command in ${DOC} (Hugging Face's names), then give the folder with config.json`,
    },
  );
}

export { HF_NAME };
