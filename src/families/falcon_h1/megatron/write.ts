/** Writes the record of Megatron-Bridge's `FalconH1ModelProvider`. */
import { IsologitError } from "../../../core/errors.ts";
import { canonicalJson } from "../../../core/hash.ts";
import type { ConfigInput } from "../../dialect.ts";
import { blockCount } from "../../parts/blocks.ts";
import { notInMegatron } from "../../parts/gpt/errors.ts";
import { MIXER_EPSILON } from "../../parts/megatron/mamba-rules.ts";
import { VOCAB_STEP } from "../../parts/megatron/parallelism.ts";
import type { Config, Settings } from "../../structure.ts";
import { DEFAULTS, FIELDS, TARGET } from "./fields.ts";

/**
 * @throws UNSUPPORTED for other software than Megatron-Bridge; PLAN_IMPOSSIBLE, naming the key of config.json, if its forward
 *   pass would compute another function
 */
export function writeRecord({ settings, passthrough, software, parallelism, dtype }: ConfigInput) {
  if (software !== "bridge") throw onlyInBridge(software);
  refuseUnlike(settings);
  const { maxPositions, chunk } = passthrough;
  const config: Config = {
    _target_: TARGET,
    ...Object.fromEntries(FIELDS.map(({ setting, key }) => [key, settings[setting]])),
    num_layers: blockCount(settings),
    num_query_groups: settings.kvHeads,
    kv_channels: settings.headDim,
    mamba_num_heads: settings.mambaHeads,
    expand: expandOf(settings, passthrough.expand),
    vocab_size: settings.vocab,
    ...(maxPositions !== undefined && { seq_length: maxPositions }),
    ...(chunk !== undefined && { chunk_size: chunk }),
    activation_func: { _call_: false, _target_: "torch.nn.functional.silu" },
    ...{ gated_linear_unit: true, normalization: "RMSNorm", add_bias_linear: false, add_qkv_bias: false },
    ...{ conv_bias: true, norm_before_gate: false },
    ...{ position_embedding_type: "rope", rotary_base: settings.ropeTheta, rotary_percent: 1 },
    seq_len_interpolation_factor: settings.ropeScaling === "linear" ? settings.ropeFactor : null,
    ...{ falconh1_ratio: 1, hybrid_override_pattern: null },
    ...{ use_mamba: true, use_attention: true, use_mlp: true },
    bf16: dtype === "bfloat16",
    params_dtype: { _call_: false, _target_: `torch.${dtype}` },
    ...{ make_vocab_size_divisible_by: VOCAB_STEP, should_pad_vocab: true },
    ...{ tensor_model_parallel_size: parallelism.tp, pipeline_model_parallel_size: 1 },
  };
  return { config, notes: notesOn(Number(settings.groups), parallelism.tp) };
}

export const ONLY_BRIDGE = "only Megatron-Bridge stores Falcon-H1, in the format bridge";

function onlyInBridge(software: string): IsologitError {
  const next = "convert it to bridge, hf or packed";
  return new IsologitError(
    "UNSUPPORTED",
    `falcon_h1 has no form in ${software}: ${ONLY_BRIDGE}`,
    {},
    { next },
  );
}

/**
 * The class requires that `expand` times the hidden width is a multiple of the head width, although the number of heads
 * decides the inner width.
 */
function expandOf({ hidden, mambaHeadDim }: Settings, expand: unknown = DEFAULTS.expand): unknown {
  const isAccepted = (Number(expand) * Number(hidden)) % Number(mambaHeadDim) === 0;
  return isAccepted ? expand : mambaHeadDim;
}

const BIASES = {
  attentionBias: "attention_bias",
  mlpBias: "mlp_bias",
  projectorsBias: "projectors_bias",
  mambaProjBias: "mamba_proj_bias",
} as const;

function refuseUnlike(settings: Settings): void {
  for (const [setting, key] of Object.entries(BIASES))
    if (settings[setting] === true)
      throw notInMegatron(`${key} is true, and Megatron-Bridge stores no bias of a Falcon-H1 model`);
  const {
    dtMin,
    dtMax,
    mambaRmsNorm,
    normBeforeGate,
    eps,
    mixerEps = eps,
    ropeScaling,
    ropeTheta,
  } = settings;
  if (dtMin !== 0 || dtMax !== "Infinity")
    throw notInMegatron(
      `time_step_limit is ${canonicalJson([dtMin, dtMax])}, and Megatron has no key for limits of time steps`,
    );
  if (mambaRmsNorm === true && normBeforeGate === true)
    throw notInMegatron(
      "mamba_norm_before_gate is true, and Megatron's mixer has the norm after the gate only",
    );
  if (mambaRmsNorm === true && mixerEps !== MIXER_EPSILON)
    throw notInMegatron(
      `rms_norm_eps is ${mixerEps}, and the norm inside Megatron's mixer always uses ${MIXER_EPSILON}`,
    );
  if (ropeScaling !== "none" && ropeScaling !== "linear")
    throw notInMegatron(`rope_scaling is ${ropeScaling}, and a record of this class has linear scaling only`);
  if (!Number.isSafeInteger(ropeTheta))
    throw notInMegatron(`rope_theta is ${ropeTheta}, and rotary_base of this class is a whole number`);
}

/** Megatron gives each tensor parallel rank whole groups. */
function notesOn(groups: number, tp: number): readonly string[] {
  if (groups % tp === 0) return [];
  return [
    `Megatron cannot divide ${groups} Mamba groups among ${tp} tensor parallel ranks: this folder loads at sizes that divide them`,
  ];
}
