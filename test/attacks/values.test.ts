/** The bits decide, also where no prompt goes. */
import { encode } from "../../src/core/float.ts";
import { floatsOf } from "../support/goldens.ts";
import type { Editor } from "../support/verify/planted.ts";
import { type Attack, attacks } from "./attack.ts";
import { type Change, compared, fill, namesOf } from "./changes.ts";

const EMBEDDING = "backbone.embeddings.weight";

/** A BF16 element as these bits; counted from the end where negative. */
const element =
  (name: string, at: number, bits: number): Change =>
  (one) =>
    one.bytes(name, (bytes) => {
      const words = new Uint16Array(bytes.buffer);
      words[at < 0 ? words.length + at : at] = bits;
    });

const flipIn =
  (pattern: RegExp, which: "first" | "last" = "first"): Change =>
  (one) => {
    const names = namesOf(one, pattern);
    one.flip(names.at(which === "first" ? 0 : -1)!, 38);
  };

/** F32 tensors stored in a narrower type. */
const narrowed =
  (pattern: RegExp, dtype: "BF16" | "F16"): Change =>
  (one) => {
    for (const name of namesOf(one, pattern)) {
      const words = Uint16Array.from(floatsOf(one.get(name)), (value) => encode(dtype, value));
      one.put(name, { dtype, bytes: new Uint8Array(words.buffer) });
    }
  };

/** B and C of every Mamba layer exchanged, in each tensor that knows them. */
function exchangeBC(one: Editor): void {
  const { mamba_num_heads, mamba_head_dim, n_groups, ssm_state_size } = one.json("config.json") as Record<
    string,
    number
  >;
  const [inner, group] = [mamba_num_heads! * mamba_head_dim!, n_groups! * ssm_state_size!];
  for (const name of namesOf(one, /mixer\.in_proj\.weight$/))
    one.swapRows(name, 2 * inner, 2 * inner + group, group);
  for (const name of namesOf(one, /mixer\.conv1d\./)) one.swapRows(name, inner, inner + group, group);
}

const BIAS = "backbone.layers.0.mixer.conv1d.bias";
const UP = "backbone.layers.1.mixer.up_proj.weight";

const rows: readonly Attack[] = [
  {
    name: "minus-zero",
    what: "+0.0 is -0.0 in one bias",
    right: "red",
    run: compared({ a: element(BIAS, 0, 0), b: element(BIAS, 0, 0x8000) }),
  },
  {
    name: "nan-payload",
    what: "a NaN in a row that no prompt reads has another payload",
    right: "red",
    run: compared({ a: element(EMBEDDING, -1, 0x7fc0), b: element(EMBEDDING, -1, 0x7fc1) }),
  },
  {
    name: "subnormal",
    what: "a subnormal is another subnormal",
    right: "red",
    run: compared({ a: element(UP, 0, 1), b: element(UP, 0, 2) }),
  },
  {
    name: "unread-row",
    what: "the row of a token that is never read has one bit changed",
    right: "red",
    run: compared({ b: (one) => one.flip(EMBEDDING, 32_766) }, "--ids", "1,2,3,4,5,6,7,8"),
  },
  {
    name: "unread-expert",
    what: "an expert's weight is changed under a prompt of one token",
    right: "red",
    run: compared({ golden: "moe", b: flipIn(/\.experts\.5\./) }, "--ids", "1"),
  },
  {
    name: "mtp-bit",
    what: "a weight of a prediction layer has one bit changed",
    right: "red",
    run: compared({ golden: "latent-moe", b: flipIn(/^mtp\..*\.experts\./, "last") }),
  },
  {
    name: "moe-correction",
    what: "the correction biases of two experts that no token is near are exchanged",
    right: "red",
    run: compared(
      { golden: "moe", b: (one) => one.swapRows(namesOf(one, /e_score_correction_bias$/).at(-1)!, 0, 5, 1) },
      "--ids",
      "1",
    ),
  },
  {
    name: "a-log-bf16",
    what: "A_log, D and dt_bias are BF16 where A has F32",
    right: "told",
    run: compared({ golden: "moe", b: narrowed(/(A_log|\.D|dt_bias)$/, "BF16") }),
  },
  {
    name: "correction-f16",
    what: "correction biases are F16 where A has F32",
    right: "told",
    run: compared({ golden: "moe", b: narrowed(/e_score_correction_bias$/, "F16") }),
  },
  {
    name: "one-token-bc",
    what: "B and C are exchanged everywhere, which one token cannot show",
    right: "red",
    run: compared({ b: exchangeBC }, "--ids", "5"),
  },
  {
    name: "both-overflow",
    what: "both sides overflow to infinity on every token",
    right: "red",
    run: compared({
      a: (one) => fill(one, "lm_head.weight", 3e38),
      b: (one) => fill(one, "lm_head.weight", 3e38),
    }),
  },
];

attacks("values", rows);
