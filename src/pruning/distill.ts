/**
 * Files that hand a pruned model to distillation: a script for Model-Optimizer, the settings of the loss for Megatron-Bridge, and
 * a page that says how long to train. Nothing here trains.
 *
 * @see NVIDIA/Model-Optimizer, examples/megatron_bridge/distill.py, and Megatron-Bridge, docs/training/distillation.md
 */
import { stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { IsologitError, systemError } from "../core/errors.ts";
import { formatCount } from "../core/figures.ts";
import type { RecognisedModel } from "../families/model.ts";
import { makeFolders } from "../io/folders.ts";
import { sizedShape } from "./sizes/candidates.ts";
import { wholeShape } from "./sizes/shape.ts";

interface DistilledModels {
  /** path or `hf://` address of the source, which is the teacher */
  readonly teacher: string;
  /** path of the pruned model */
  readonly student: string;
  readonly parameters: { readonly teacher: number; readonly student: number };
  readonly vocab: number;
}

/** A text file of the folder. */
interface TextFile {
  readonly path: string;
  readonly text: string;
  readonly executable: boolean;
}

/** Tokens of a sample, and samples of an iteration. */
const [SEQUENCE, BATCH] = [8192, 768];
const TOKENS_PER_ITERATION = SEQUENCE * BATCH;

/** Megatron pads the vocabulary to a multiple of this number times the tensor parallel size. */
const VOCAB_STEP = 128;

/** Token budgets that the page lists: a check that training works, a choice between candidates, and full runs. */
const TOKEN_BUDGETS = [
  [1e9, "a first look: the loss must fall"],
  [7e9, "to choose between candidates (MiniPuzzle distilled three of them so long)"],
  [63e9, "Nemotron-H-47B from 56B"],
  [80e9, "Model-Optimizer's advice for a cut of 30 to 50 %: 80 to 100 billion tokens"],
] as const;

/** Iterations that read a number of tokens. */
const iterationsFor = (tokens: number): number => Math.ceil(tokens / TOKENS_PER_ITERATION);

const FILES = ["README.md", "distill.sh", "kd_config.yaml"] as const;

/** The files, in order of their names. Equal models give equal bytes. */
function distillFiles(models: DistilledModels): readonly TextFile[] {
  const texts: Readonly<Record<(typeof FILES)[number], string>> = {
    "README.md": pageOf(models),
    "distill.sh": scriptOf(models),
    "kd_config.yaml": KD_CONFIG,
  };
  return FILES.map((path) => ({ path, text: texts[path], executable: path.endsWith(".sh") }));
}

/** A text as one word of a POSIX shell: names of files may hold any character. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** Other software knows a repository of the Hub as `owner/name`. */
const hubName = (address: string): string => address.replace(/^hf:\/\/([^/]+\/[^/@]+).*$/s, "$1");

const scriptOf = ({ teacher, student }: DistilledModels): string => `#!/bin/sh
# Distils the pruned model from its source with Model-Optimizer, in a NeMo container with GPUs.
# Set MODELOPT, DATA and OUTPUT; the other values have defaults. See README.md in this folder.
set -eu
: "\${MODELOPT:?path of a clone of github.com/NVIDIA/Model-Optimizer}"
: "\${DATA:?weights and prefixes of tokenized data, such as: 1.0 /data/web_text_document}"
: "\${OUTPUT:?folder for checkpoints and logs}"
[ -n "\${TEACHER:-}" ] || TEACHER=${quoted(hubName(teacher))}
[ -n "\${STUDENT:-}" ] || STUDENT=${quoted(student)}

# DATA holds several words on purpose
# shellcheck disable=SC2086
exec torchrun --nnodes "\${NODES:-1}" --nproc_per_node "\${GPUS:-8}" \\
  "$MODELOPT/examples/megatron_bridge/distill.py" \\
  --teacher_hf_path "$TEACHER" \\
  --student_hf_path "$STUDENT" \\
  --tp_size "\${TP:-8}" \\
  --pp_size "\${PP:-1}" \\
  --data_paths $DATA \\
  --data_path_to_cache "$OUTPUT/cache" \\
  --seq_length ${SEQUENCE} \\
  --mbs 1 \\
  --gbs ${BATCH} \\
  --train_iters "\${ITERATIONS:-${iterationsFor(63e9)}}" \\
  --lr "\${LR:-1e-4}" \\
  --min_lr "\${MIN_LR:-1e-5}" \\
  --lr_warmup_iters 100 \\
  --eval_interval 100 \\
  --eval_iters 32 \\
  --output_dir "$OUTPUT" \\
  \${TRUST_REMOTE_CODE:+--trust_remote_code}
`;

const KD_CONFIG = `# Loss of a distillation with Megatron-Bridge: forward KL on logits alone, temperature 1.
# Its documents name a pair decoder.final_layernorm; Nemotron-H has no layer of this name, so no pair is given.
model:
  kd_config:
    logit_layers: ["output_layer", "output_layer"]
    intermediate_layer_pairs: []
    skip_lm_loss: true
    kd_loss_scale: 1.0
    logit_kl_temperature: 1.0
`;

function pageOf({ teacher, student, parameters, vocab }: DistilledModels): string {
  const kept = ((100 * parameters.student) / parameters.teacher).toFixed(1);
  const rows = TOKEN_BUDGETS.map(
    ([tokens, purpose]) => `| ${tokens / 1e9} billion | ${formatCount(iterationsFor(tokens))} | ${purpose} |`,
  );
  const padded = [1, 2, 4, 8].map((tp) => {
    const step = VOCAB_STEP * tp;
    return `${formatCount(Math.ceil(vocab / step) * step)} at TP ${tp}`;
  });
  return `# Distil the pruned model

| | path | parameters |
|---|---|---|
| teacher | ${inTable(teacher)} | ${formatCount(parameters.teacher)} |
| student | ${inTable(student)} | ${formatCount(parameters.student)} (${kept} %) |

A model that was just pruned is worse than its source until it is distilled.

1. Tokenize text with the tokenizer of the student, into \`.bin\` and \`.idx\` files of Megatron
   (Model-Optimizer, \`examples/dataset/README.md\`).
2. Start a NeMo container with GPUs. Teacher and student are in GPU memory together: in BF16 their weights alone are
   ${gigabytes(2 * (parameters.teacher + parameters.student))}, and gradients and the optimizer of the student add about
   ${gigabytes(16 * parameters.student)} (16 bytes a parameter), spread over all ranks.
3. \`MODELOPT=/opt/Model-Optimizer DATA="1.0 /data/text_document" OUTPUT=/output/distilled ./distill.sh\`
   \`NODES\`, \`GPUS\`, \`TP\`, \`PP\`, \`ITERATIONS\`, \`LR\` and \`MIN_LR\` change the run, \`TEACHER\` and \`STUDENT\` the paths, which
   are relative to the folder in which \`isologit\` ran. Both models must be Hugging Face folders or names on the Hub:
   \`isologit convert --to hf\` makes a folder. \`TRUST_REMOTE_CODE=1\` runs Python code that lies beside the weights.

One iteration reads ${formatCount(BATCH)} sequences of ${formatCount(SEQUENCE)} tokens, ${formatCount(TOKENS_PER_ITERATION)} in all:

| tokens | iterations | for |
|---|---|---|
${rows.join("\n")}

- The learning rate goes from 1e-4 to 1e-5. Use a smaller one for a large model or a small cut.
- A cut of more than 50 % is better made in two rounds, each with its own distillation.
- Teacher and student must have the same tokenizer and the same padded vocabulary: ${padded.join(", ")}. Both have
  ${formatCount(vocab)} tokens, so equal TP sizes give equal padding.
- \`kd_config.yaml\` states the same loss for Megatron-Bridge, whose recipe scripts can read it as their config file.
  \`distill.py\` has this loss by default.
- The distilled model is in \`OUTPUT/checkpoints\`, as a distributed checkpoint of Megatron. \`isologit convert\` reads it, and
  \`isologit verify\` compares what was converted.
`;
}

const gigabytes = (bytes: number): string =>
  bytes >= 1e9 ? `${Math.round(bytes / 1e9)} GB` : `${(bytes / 1e9).toPrecision(2)} GB`;

/** A cell of a Markdown table. */
const inTable = (text: string): string => `\`${text.replace(/[`|\n\r]/g, " ")}\``;

/**
 * Refuses a folder that has one of the files already.
 *
 * @param isWritten whether a pruned model is written
 * @throws USAGE if it is not; DESTINATION_EXISTS, unless `overwrite`
 */
export async function refuseDistillFiles(
  { distill, overwrite = false }: { readonly distill?: string; readonly overwrite?: boolean },
  isWritten: boolean,
): Promise<void> {
  if (distill === undefined) return;
  if (!isWritten)
    throw new IsologitError("USAGE", "`distill` is for a model that is written, and nothing is");
  for (const path of overwrite ? [] : FILES) {
    const file = join(distill, path);
    const found = await stat(file).catch(() => null); // a folder that cannot be read is reported when it is written
    if (found !== null) throw existsError(file);
  }
}

const existsError = (file: string, cause?: unknown): IsologitError =>
  new IsologitError("DESTINATION_EXISTS", "a file of the distillation exists already", { file }, { cause });

/**
 * Writes the files. The folder may exist; a file in it is replaced only with `overwrite`.
 *
 * @param teacher address of the source
 * @throws DESTINATION_EXISTS, IO_FAILED, DISK_FULL
 */
export async function writeDistillFiles(
  folder: string,
  source: RecognisedModel,
  teacher: string,
  { address: student, parameters }: { readonly address: string; readonly parameters: number },
  overwrite: boolean,
): Promise<void> {
  const whole = sizedShape(source, wholeShape(source), {}).parameters;
  const models = {
    teacher,
    student,
    parameters: { teacher: whole, student: parameters },
    vocab: source.dims.vocab,
  };
  try {
    await makeFolders(folder);
    for (const { path, text, executable } of distillFiles(models)) {
      const mode = executable ? 0o755 : 0o644;
      await writeFile(join(folder, path), text, { mode, flag: overwrite ? "w" : "wx" });
    }
  } catch (error) {
    const exists = error instanceof Error && "code" in error && error.code === "EEXIST";
    if (exists) throw existsError(folder, error);
    throw systemError(error, { file: folder });
  }
}
