/** Models that are unusual and right, and files that say the same in other words: no false alarm. */
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Answer, type Attack, ask, attacks, convert, isRed, made, verify } from "../attacks/attack.ts";
import { type Change, copied, fill, namesOf, pair, unchanged } from "../attacks/changes.ts";

/** `convert` to a copy of a golden that is changed. */
const copy =
  (change: Change, flags: readonly string[] = [], golden = "tiny") =>
  async (at: string) =>
    await convert(await copied(golden, join(at, "a"), change), join(at, "c"), "--to", "hf", ...flags);

/** `recast` of such a golden, every projection. */
const recast =
  (change: Change, golden = "tiny", dtype = "fp8-e4m3") =>
  async (at: string) => {
    const source = await copied(golden, join(at, "a"), change);
    return await ask(["recast", source, join(at, "c"), "--dtype", dtype, "--recipe", "all-linear"]);
  };

const filled = (pattern: RegExp, value = 0): Change => {
  return (one) => {
    for (const name of namesOf(one, pattern)) fill(one, name, value);
  };
};

const UP = "backbone.layers.1.mixer.up_proj.weight";
const EMBEDDING = "backbone.embeddings.weight";

/** Every expert is the first, and the router prefers none: as a dense model is grown into a mixture. */
const upcycled: Change = (one) => {
  for (const name of namesOf(one, /\.experts\.\d+\./))
    one.put(name, { bytes: one.get(name.replace(/\.experts\.\d+\./, ".experts.0.")).bytes });
  for (const name of namesOf(one, /gate\.weight$/)) one.rows(name, () => 0);
  filled(/e_score_correction_bias$/)(one);
};

/** A model of one layer, taken out of the golden. */
const alone =
  (kind: string, layer: number): Change =>
  (one) => {
    for (const name of namesOf(one, /\.layers\./)) {
      const { dtype, shape, bytes } = one.get(name);
      one.drop(name);
      const found = name.startsWith(`backbone.layers.${layer}.`);
      if (found) one.add(name.replace(`.layers.${layer}.`, ".layers.0."), dtype, shape, bytes);
    }
    one.config({ hybrid_override_pattern: kind, num_hidden_layers: 1 });
  };

/** The worst of several answers. */
async function worst(answers: readonly Promise<Answer>[]): Promise<Answer> {
  const all = await Promise.all(answers);
  return all.find(isRed) ?? all.find(({ exit }) => exit !== 0) ?? all[0]!;
}

const rows: readonly Attack[] = [
  {
    name: "honest-tokenizer-rewritten",
    what: "tokenizer.json is written again with other white space",
    right: "green",
    async run(at) {
      const [a, b] = await pair(at, {});
      const path = join(b, "tokenizer.json");
      writeFileSync(path, JSON.stringify(JSON.parse(readFileSync(path, "utf8"))));
      return await verify(a, b);
    },
  },
  {
    name: "honest-config-rewritten",
    what: "redundant keys of config.json are left out",
    right: "green",
    async run(at) {
      const redundant = [
        "rms_norm_eps",
        "attention_head_dim",
        "num_query_groups",
        "expand",
        "time_step_rank",
      ];
      const without = Object.fromEntries(redundant.map((key) => [key, undefined]));
      return await verify(...(await pair(at, { b: (one) => one.config(without) })));
    },
  },
  {
    name: "honest-single-layers",
    what: "models of one layer of each kind",
    right: "green",
    run: (at) =>
      worst(
        (
          [
            ["M", 0],
            ["-", 1],
            ["*", 3],
          ] as const
        ).map(async ([kind, layer]) => {
          const source = await copied("tiny", join(at, `a${layer}`), alone(kind, layer));
          return await convert(source, join(at, `c${layer}`), "--to", "hf");
        }),
      ),
  },
  {
    name: "honest-tiny-vocab",
    what: "a vocabulary of two words",
    right: "green",
    async run(at) {
      const source = await copied("tiny", join(at, "a"), (one) => {
        for (const name of [EMBEDDING, "lm_head.weight"])
          one.put(name, { shape: [2, 64], bytes: one.get(name).bytes.slice(0, 2 * 64 * 2) });
        one.config({ vocab_size: 2 });
      });
      rmSync(join(source, "tokenizer.json"));
      return await convert(source, join(at, "c"), "--to", "hf");
    },
  },
  {
    name: "honest-dead-up",
    what: "the first up projection is zeros",
    right: "green",
    run: copy((one) => fill(one, UP, 0)),
  },
  {
    name: "honest-equal-rows",
    what: "the rows of the first up projection are equal",
    right: "green",
    run: copy((one) => one.rows(UP, () => 0)),
  },
  {
    name: "honest-zero-v",
    what: "the values of the first attention are zeros",
    right: "green",
    run: copy(filled(/layers\.3\..*v_proj/)),
  },
  {
    name: "honest-zero-rows",
    what: "the rows of half the vocabulary are zeros",
    right: "green",
    run: copy((one) => one.values(EMBEDDING, (value, i) => (i < 256 * 64 ? value : 0))),
  },
  {
    name: "honest-zero-weight",
    what: "an FP8 recast with a weight of zeros",
    right: "green",
    run: recast((one) => fill(one, UP, 0)),
  },
  {
    name: "honest-subnormal-weight",
    what: "an FP8 recast with a weight of subnormals",
    right: "green",
    run: recast((one) => one.values(UP, (value) => value * 1e-39)),
  },
  {
    name: "honest-upcycled",
    what: "every expert is the same, and the router prefers none",
    right: "green",
    run: copy(upcycled, [], "moe"),
  },
  {
    name: "honest-upcycled-fp8",
    what: "an FP8 recast of such a model",
    right: "green",
    run: recast(upcycled, "moe"),
  },
  {
    name: "honest-identity-blocks",
    what: "all output projections are zeros, as when depth is added",
    right: "green",
    run: copy(filled(/(out_proj|o_proj|down_proj)\.weight$/)),
  },
  {
    name: "honest-dead-mamba",
    what: "the input projections of all Mamba layers are zeros",
    right: "green",
    run: copy(filled(/in_proj\.weight$/)),
  },
  {
    name: "honest-zero-gain",
    what: "the gain of one layer's norm is zeros",
    right: "green",
    run: copy(filled(/layers\.0\.norm\.weight$/)),
  },
  {
    name: "honest-one-token",
    what: "a copy under one token, which is documented as unproven",
    right: "told",
    run: copy(unchanged, ["--tokens", "1"]),
  },
  {
    name: "honest-equal-ids",
    what: "a copy under ids that are all equal",
    right: "green",
    run: copy(unchanged, ["--ids", Array(32).fill(7).join(",")]),
  },
  {
    name: "honest-dt-zero",
    what: "time steps of one layer are 0, which is documented as unproven",
    right: "told",
    run: copy(filled(/layers\.0\..*dt_bias$/, -200)),
  },
  {
    name: "honest-unread-nan",
    what: "a row that no prompt reads holds a NaN",
    right: "green",
    run: copy((one) => one.values(EMBEDDING, (value, i) => (i === 512 * 64 - 1 ? Number.NaN : value))),
  },
  { name: "honest-e5m2", what: "an E5M2 recast", right: "green", run: recast(unchanged, "tiny", "fp8-e5m2") },
  {
    name: "honest-e5m2-back",
    what: "an E5M2 recast cast back to BF16",
    right: "green",
    async run(at) {
      const flags = ["--dtype", "fp8-e5m2", "--recipe", "all-linear"];
      const fp8 = await made(
        "recast",
        await copied("tiny", join(at, "a")),
        join(at, "b"),
        ...flags,
        "--verify",
        "off",
      );
      return await ask(["recast", fp8, join(at, "c"), "--dtype", "bf16"]);
    },
  },
  {
    name: "honest-tp2",
    what: "to NeMo 2 with --tp 2 and home",
    right: "green",
    async run(at) {
      const source = await copied("tiny", join(at, "a"));
      const flags = ["--to", "nemo2", "--tp", "2", "--verify", "off"];
      const nemo = await made("convert", source, join(at, "n"), ...flags);
      const home = await made("convert", nemo, join(at, "h"), "--to", "hf");
      return await verify(source, home);
    },
  },
];

attacks("honest ones", rows);
