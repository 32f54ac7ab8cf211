/** Prefixes and parts that wrappers add to the names of modules, so that loaders do not know the names. */
import type { Checkpoint } from "../../core/checkpoint.ts";
import { IsologitError } from "../../core/errors.ts";
import type { Scene } from "./scene.ts";

/** Names that wrappers give to the module that they wrap, and who writes them. */
const WRAPPERS: readonly (readonly [segment: string, software: string])[] = [
  ["_orig_mod", "torch.compile"],
  ["_fsdp_wrapped_module", "FSDP"],
  ["_checkpoint_wrapped_module", "activation checkpointing"],
  ["_forward_module", "Lightning Fabric"],
  ["module", "DistributedDataParallel or DeepSpeed"],
];
/** Beginnings of the names of a model, by dialect. */
const BEGINNINGS: Readonly<Record<string, RegExp>> = {
  hf: /^(backbone|lm_head|mtp)\.|^model\.(layers|embed)/,
  megatron: /^(embedding|decoder|output_layer|mtp)\./,
  "megatron-ranks": /^(embedding|decoder|output_layer|mtp)\./,
};

/** Finds the segments of wrappers, for example `_orig_mod.`, before or inside names. */
export function wrappedNames({ checkpoint }: Scene): IsologitError | null {
  if (checkpoint === undefined) return null;
  const names = checkpoint.tensors.map(({ name }) => name);
  const found = WRAPPERS.filter(([segment]) => names.some((name) => hasSegment(name, segment)));
  if (found.length === 0) return null;
  const wrapped = names.filter((name) => found.some(([segment]) => hasSegment(name, segment)));
  const beginning = BEGINNINGS[checkpoint.dialect];
  if (!wrapped.some((name) => beginning?.test(bare(name, found)) === true)) return null;
  const first = checkpoint.tensors.find(({ name }) => name === wrapped[0])!;
  const prefix = wrapped.length === names.length ? commonPrefix(names, found) : undefined;
  const software = [...new Set(found.map(([, by]) => by))].join(" and ");
  const message =
    prefix === undefined
      ? `${wrapped.length} of ${names.length} names contain ${listed(found)}, which ${software} adds`
      : `all ${names.length} names begin with \`${prefix}\`, which ${software} adds`;
  const file = first.pieces[0]?.file;
  return new IsologitError(
    "TENSOR_UNKNOWN",
    message,
    { tensor: first.name, ...(file !== undefined && { file }) },
    { next: stripping(checkpoint, found) },
  );
}

/** Other names of a part of the model, and their meaning, if the usual name is missing. */
const STRAYS: readonly {
  readonly found: RegExp;
  readonly wanted: readonly string[];
  readonly means: string;
  readonly next: string;
}[] = [
  {
    found: /^(score|v_head\.summary|value_head|classifier)\.(weight|bias)$/,
    wanted: ["lm_head.weight"],
    means: "a model that scores or classifies text, without a head that generates text",
    next: "give the causal language model that this one was trained from; a reward model is not read",
  },
  {
    found: /^backbone\.(embed_tokens|word_embeddings|wte)\.weight$/,
    wanted: ["backbone.embeddings.weight", "backbone.embedding.weight"],
    means: "the token table under a name that no release of Nemotron-H uses",
    next: "rename the tensor to backbone.embeddings.weight, its name in the published checkpoints",
  },
];

/** One part of the model under another name. */
export function strayNames({ checkpoint }: Scene): IsologitError | null {
  if (checkpoint?.dialect !== "hf") return null;
  const names = new Set(checkpoint.tensors.map(({ name }) => name));
  for (const { found, wanted, means, next } of STRAYS) {
    const stray = checkpoint.tensors.find(({ name }) => found.test(name));
    if (stray === undefined || wanted.some((name) => names.has(name))) continue;
    const message = `the checkpoint has ${stray.name} and not ${wanted[0]}: ${means}`;
    const file = stray.pieces[0]?.file;
    const at = { tensor: stray.name, ...(file !== undefined && { file }) };
    return new IsologitError("TENSOR_MISSING", message, at, { next });
  }
  return null;
}

const hasSegment = (name: string, segment: string) =>
  name.startsWith(`${segment}.`) || name.includes(`.${segment}.`);

function bare(name: string, found: typeof WRAPPERS): string {
  const segments = new Set(found.map(([segment]) => segment));
  return name
    .split(".")
    .filter((segment) => !segments.has(segment))
    .join(".");
}

/** The prefix of every name that consists of wrappers only; undefined if the prefixes differ. */
function commonPrefix(names: readonly string[], found: typeof WRAPPERS): string | undefined {
  const segments = new Set(found.map(([segment]) => segment));
  const prefixes = new Set(
    names.map((name) => {
      const parts = name.split(".");
      const end = parts.findIndex((part) => !segments.has(part));
      const rest = parts.slice(end);
      return rest.some((part) => segments.has(part))
        ? ""
        : parts
            .slice(0, end)
            .map((part) => `${part}.`)
            .join("");
    }),
  );
  const [only] = prefixes;
  return prefixes.size === 1 && only !== "" ? only : undefined;
}

const listed = (found: typeof WRAPPERS) => found.map(([segment]) => `\`${segment}.\``).join(" and ");

/** A command that rewrites the files without the names of the wrappers. */
function stripping({ format, tensors }: Checkpoint, found: typeof WRAPPERS): string {
  const pattern = `(^|(?<=[.]))(${found.map(([segment]) => segment).join("|")})[.]`;
  if (format === "hf") {
    return `in a copy of the folder, without its index, run \`python3 -c "import os,re,sys,safetensors.torch as s; [(t:=s.load_file(f), os.remove(f), s.save_file({re.sub('${pattern}', '', k): v for k, v in t.items()}, f, {'format': 'pt'})) for f in sys.argv[1:]]" *.safetensors\``;
  }
  if (format === "megatron") {
    const file = tensors[0]?.pieces[0]?.file.split("/").at(-1) ?? "model_optim_rng.pt";
    return `in a copy of the folder, for files that you trust (loading executes them), run \`python3 -c "import re,sys,torch; [(d:=torch.load(f, map_location='cpu', weights_only=False), d.update(model={re.sub('${pattern}', '', k): v for k, v in d['model'].items()}), torch.save(d, f)) for f in sys.argv[1:]]" */mp_rank_*/${file}\``;
  }
  return "save the checkpoint again from the module inside the wrapper, for torch.compile `model._orig_mod.state_dict()`";
}
