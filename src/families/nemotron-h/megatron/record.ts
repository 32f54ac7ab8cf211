/** Writes the config record for Megatron, Megatron-Bridge or NeMo 2, by the table of fields. */
import { IsologitError } from "../../../core/errors.ts";
import type { ConfigInput } from "../../dialect.ts";
import { MIXER_EPSILON } from "../../parts/megatron/mamba-rules.ts";
import { VOCAB_STEP } from "../../parts/megatron/parallelism.ts";
import type { Software } from "../../parts/megatron/software.ts";
import type { Config, Parallelism, Settings } from "../../structure.ts";
import { findClass } from "./classes.ts";
import { CONV_KERNEL, FIELDS, nameIn, normalizesScores } from "./fields.ts";

const TARGETS = {
  nemo2: (settings: Settings) => `nemo.collections.llm.gpt.model.ssm.${findClass(settings)}`,
  bridge: () => "megatron.bridge.models.hybrid.hybrid_provider.HybridModelProvider",
  megatron: null,
} as const;

/** @throws PLAN_IMPOSSIBLE if Megatron's forward pass would compute another function */
export function configFor({ settings, passthrough, software, parallelism, dtype }: ConfigInput) {
  const target = software as Software; // every writer of this dialect is one of these
  refuseUnlike(settings);
  const letters = `${settings.pattern}${settings.mtpPattern ?? ""}`;
  const config: Record<string, unknown> = {};
  const named = TARGETS[target];
  if (named !== null) config._target_ = named(settings);
  for (const field of FIELDS) {
    const name = nameIn(field, target);
    if (name === null || (field.on !== undefined && !letters.includes(field.on))) continue;
    const value = { ...passthrough, ...settings }[field.setting ?? ""] ?? field.otherwise;
    if (value !== undefined) config[name] = value === field.absent && value === 0 ? null : value;
  }
  const uneven = parallelism.stages.some(({ main }) => main !== parallelism.stages[0]!.main);
  Object.assign(config, patternRecord(settings, target, parallelism, uneven), {
    num_layers: String(settings.pattern).length,
    bf16: dtype === "bfloat16",
    params_dtype: { _call_: false, _target_: `torch.${dtype}` },
    make_vocab_size_divisible_by: VOCAB_STEP,
    tensor_model_parallel_size: parallelism.tp,
    pipeline_model_parallel_size: target === "megatron" ? parallelism.stages.length : 1,
    ...(target === "bridge" && { should_pad_vocab: true }),
    ...(target === "megatron" && {
      padded_vocab_size: parallelism.rows,
      max_position_embeddings: passthrough.maxPositions ?? null,
    }),
    ...(letters.includes("E") && {
      expert_model_parallel_size: parallelism.ep,
      expert_tensor_parallel_size: target === "megatron" ? parallelism.expertTp : 1,
    }),
  });
  return { config, notes: notesFor(settings, target, uneven) };
}

/** The keys of the layers. `|` marks pipeline stages of different length; only the newer key allows it. */
function patternRecord(
  settings: Settings,
  software: Software,
  { stages }: Parallelism,
  uneven: boolean,
): Config {
  const { mtpSteps = 0, mtpPattern = "" } = settings;
  const predicts = Number(mtpSteps) > 0;
  const steps = { mtp_num_layers: predicts ? mtpSteps : null };
  if (software === "nemo2" || (software === "megatron" && !uneven)) {
    const own = predicts ? { mtp_hybrid_override_pattern: mtpPattern } : {};
    return { hybrid_override_pattern: settings.pattern, ...steps, ...own };
  }
  const ends = stages.map((_, i) => stages.slice(0, i + 1).reduce((sum, { main }) => sum + main, 0));
  const main = ends.map((end, i) => String(settings.pattern).slice(ends[i - 1] ?? 0, end));
  const cut = main.join(uneven ? "|" : "");
  return { hybrid_layer_pattern: cut + `/${mtpPattern}`.repeat(Number(mtpSteps)), ...steps };
}

function refuseUnlike(settings: Settings): void {
  const refuse = (message: string) => {
    throw new IsologitError(
      "PLAN_IMPOSSIBLE",
      `Megatron cannot run this model: ${message}`,
      {},
      {
        next: "convert it to hf or packed",
      },
    );
  };
  if (settings.dtMin !== 0 || settings.dtMax !== "Infinity") {
    refuse(
      `its time steps are limited to [${settings.dtMin}, ${settings.dtMax}], and Megatron has no key for limits`,
    );
  }
  if ((settings.convKernel ?? CONV_KERNEL) !== CONV_KERNEL) {
    refuse(`its convolution has ${settings.convKernel} taps; Megatron's convolution has ${CONV_KERNEL}`);
  }
  const mixerEps = settings.mixerEps ?? settings.eps;
  if (settings.mambaHeads !== undefined && mixerEps !== MIXER_EPSILON) {
    refuse(`its epsilon is ${mixerEps}; in the norm of a Mamba layer Megatron always uses ${MIXER_EPSILON}`);
  }
  if (settings.routeNormalise !== undefined && settings.routeNormalise !== normalizesScores(settings)) {
    refuse(`its router ${settings.routeNormalise ? "divides" : "does not divide"} scores by their sum`);
  }
}

function notesFor(settings: Settings, software: Software, uneven: boolean): readonly string[] {
  const notes: string[] = [];
  const { experts, routeGroups = 1, routeTopGroups = 1, topK, mtpSteps } = settings;
  if (software === "nemo2" && (experts !== undefined || mtpSteps !== undefined)) {
    notes.push(
      "NeMo 2 cannot load hybrid models with experts or prediction layers; use a newer Megatron to load this model",
    );
  }
  const scored = Math.floor(Number(topK) / Number(routeTopGroups));
  if (Number(routeGroups) > 1 && scored !== 2) {
    notes.push(
      `Megatron ranks a group of experts by its ${scored} best experts, Transformers by its 2 best: the routing in Megatron will differ`,
    );
  }
  if (uneven) {
    notes.push(
      "the layers do not divide evenly among the pipeline stages; older Megatron releases cannot load such a checkpoint",
    );
  }
  return notes;
}
