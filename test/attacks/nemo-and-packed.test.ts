/** What NeMo's and Megatron's records say of the model, and what lies inside a packed file. */
import { cpSync, existsSync, readdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { golden } from "../support/goldens.ts";
import { type Attack, ask, attacks, convert, made, verify } from "./attack.ts";
import { copied, editJson, editText, pair, put } from "./changes.ts";

const ORIGINAL = golden("nemo2-tiny/hf");
const MODEL = "context/model.yaml";

/** A golden of NVIDIA's formats, without what lies beside it for tests. */
function copyOf(name: string, folder: string): string {
  cpSync(golden(name), folder, {
    recursive: true,
    filter: (path) => !/\/(hf|dcp\.json)$/.test(path),
  });
  return folder;
}

/** `verify` of the original against a NeMo 2 folder whose record says something else. */
const recorded = (from: string, to: string) => async (at: string) => {
  const folder = copyOf("nemo2-tiny", join(at, "b"));
  editText(join(folder, MODEL), from, to);
  return await verify(ORIGINAL, folder);
};

/** Softmax over logits that are not divided by the root of the head's width. */
function unscaleSoftmax(folder: string): string {
  const path = join(folder, MODEL);
  const said = readFileSync(path, "utf8").includes("softmax_scale: null");
  if (said) editText(path, "softmax_scale: null", "softmax_scale: 1.0");
  else editText(path, "config:\n", "config:\n  softmax_scale: 1.0\n");
  return folder;
}

/** The first two rows of padding, all zeros, in the weights of a NeMo 2 folder become 64. */
function fillPadding(folder: string, padding: number): number {
  let filled = 0;
  for (const file of readdirSync(join(folder, "weights")).filter((name) => name.endsWith(".distcp"))) {
    const path = join(folder, "weights", file);
    const bytes = readFileSync(path);
    for (let at = bytes.indexOf(Buffer.alloc(padding)); at >= 0 && filled < 2; filled++) {
      for (let i = at; i < at + padding; i += 2) bytes.writeUInt16LE(0x4280, i);
      at = bytes.indexOf(Buffer.alloc(padding), at + 1);
    }
    writeFileSync(path, bytes);
  }
  return filled;
}

/** One bit of a tensor in a packed file is flipped, its digests are left; then home. */
const damaged =
  (...flags: readonly string[]) =>
  async (at: string) => {
    const source = await copied("tiny", join(at, "a"));
    const packed = await made("convert", source, join(at, "c.isologit"), ...flags);
    const bytes = readFileSync(packed);
    let weight = Buffer.alloc(0);
    await copied("tiny", join(at, "look"), (one) => {
      weight = Buffer.from(one.get("backbone.layers.4.mixer.up_proj.weight").bytes);
    });
    const offset = bytes.indexOf(weight);
    expect(offset).toBeGreaterThan(0);
    bytes[offset + 500]! ^= 0x40;
    writeFileSync(packed, bytes);
    return await convert(packed, join(at, "home"), "--to", "hf");
  };

const rows: readonly Attack[] = [
  {
    name: "nemo-softmax-scale",
    what: "softmax_scale is 1 where it was null",
    right: "red",
    run: (at) => verify(ORIGINAL, unscaleSoftmax(copyOf("nemo2-tiny", join(at, "b")))),
  },
  {
    name: "nemo-post-ln",
    what: "apply_residual_connection_post_layernorm is true",
    right: "told",
    run: recorded(
      "apply_residual_connection_post_layernorm: false",
      "apply_residual_connection_post_layernorm: true",
    ),
  },
  {
    name: "nemo-qk-scaling",
    what: "apply_query_key_layer_scaling is true: Megatron divides and multiplies again, the same function",
    right: "told",
    tells: /apply_query_key_layer_scaling/,
    run: recorded("apply_query_key_layer_scaling: false", "apply_query_key_layer_scaling: true"),
  },
  {
    name: "bridge-router",
    what: "probabilities are applied on the input of experts, and tokens beyond their capacity are dropped",
    right: "red",
    async run(at) {
      const folder = copyOf("megatron-bridge-moe", join(at, "b"));
      const keys =
        "moe_apply_probs_on_input: true\n  moe_token_drop_policy: probs\n  moe_expert_capacity_factor: 1.0";
      editText(join(folder, "iter_0000100/run_config.yaml"), "model:\n", `model:\n  ${keys}\n`);
      return await verify(golden("megatron-bridge-moe/hf"), folder);
    },
  },
  {
    name: "nemo-padding",
    what: "padded rows of the head hold large numbers: Megatron's argmax picks ids that no tokenizer has",
    right: "told",
    tells: /padd/,
    async run(at) {
      const written = await made(
        "convert",
        golden("nemo2-tiny"),
        join(at, "b"),
        "--to",
        "nemo2",
        "--verify",
        "off",
      );
      expect(fillPadding(written, 12 * 64 * 2)).toBeGreaterThan(0);
      return await verify(ORIGINAL, written);
    },
  },
  {
    name: "megatron-ranks-swapped",
    what: "the files of two ranks are exchanged",
    right: "red",
    async run(at) {
      const folder = copyOf("megatron-tp2", join(at, "b"));
      const [zero, one, aside] = ["mp_rank_00", "mp_rank_01", "aside"].map((rank) =>
        join(folder, "iter_0000010", rank),
      );
      renameSync(zero!, aside!);
      renameSync(one!, zero!);
      renameSync(aside!, one!);
      return await verify(ORIGINAL, folder, "--vocab-size", "500");
    },
  },
  {
    name: "nemo-softmax-scale-convert",
    what: "softmax_scale is 1, and the destination cannot say so",
    right: "red",
    run: (at) => convert(unscaleSoftmax(copyOf("nemo2-tiny", join(at, "b"))), join(at, "h"), "--to", "hf"),
  },
  {
    name: "hf-window-convert",
    what: "sliding_window is 4, and the destination says nothing of it",
    right: "told",
    tells: /sliding_window/,
    async run(at) {
      const source = await copied("tiny", join(at, "a"), (one) => one.config({ sliding_window: 4 }));
      return await convert(source, join(at, "n"), "--to", "nemo2");
    },
  },
  {
    name: "hf-conv-bias-convert",
    what: "mamba_conv_bias is false, and the destination would bring the bias back",
    right: "red",
    async run(at) {
      const keys = { use_conv_bias: undefined, mamba_conv_bias: false };
      const source = await copied("tiny", join(at, "a"), (one) => one.config(keys));
      return await convert(source, join(at, "n"), "--to", "nemo2");
    },
  },
  {
    name: "origin-altered",
    what: "the config and the code that a NeMo 2 folder keeps of its source are altered, then home",
    right: "told",
    async run(at) {
      const folder = await made(
        "convert",
        await copied("tiny", join(at, "a")),
        join(at, "n"),
        "--to",
        "nemo2",
      );
      const origin = join(folder, "isologit.origin");
      expect(existsSync(join(origin, "config.json"))).toBe(true);
      editJson(join(origin, "config.json"), (json) =>
        Object.assign(json, { mamba_conv_bias: false, eos_token_id: 9 }),
      );
      put(origin, "modeling_nemotron_h.py", "import os\n");
      return await convert(folder, join(at, "h"), "--to", "hf");
    },
  },
  {
    name: "nemo-other-class",
    what: "io.json, which NeMo loads, names another class of config than model.yaml",
    right: "told",
    tells: /MambaConfig130M/,
    async run(at) {
      const folder = copyOf("nemo2-tiny", join(at, "b"));
      editText(join(folder, "context/io.json"), '"NemotronHConfig8B"', '"MambaConfig130M"');
      return await verify(ORIGINAL, folder);
    },
  },
  {
    name: "megatron-rank-arguments",
    what: "the second rank of two comes from a model that scales experts otherwise, with the same weights",
    right: "red",
    async run(at) {
      const flags = ["--to", "megatron", "--tp", "2", "--verify", "off"];
      const a = await copied("moe", join(at, "a"));
      const folder = await made("convert", a, join(at, "m"), ...flags);
      expect((await verify(a, folder, "--verify", "bytes")).verdict).toBe("same");
      const b = await copied("moe", join(at, "b"), (one) => one.config({ routed_scaling_factor: 1 }));
      const other = await made("convert", b, join(at, "o"), ...flags);
      const rank = readdirSync(folder, { recursive: true }).find((path) =>
        /mp_rank_01.*\.pt$/.test(String(path)),
      );
      cpSync(join(other, String(rank)), join(folder, String(rank)));
      return await verify(a, folder);
    },
  },
  {
    name: "origin-tokenizer",
    what: "tokenizer.json is gone from the folder that NeMo reads, and lies in isologit.origin instead",
    right: "told",
    tells: /tokenizer\.json is only in the first/,
    async run(at) {
      const a = await copied("tiny", join(at, "a"));
      const folder = await made("convert", a, join(at, "n"), "--to", "nemo2", "--verify", "off");
      renameSync(
        join(folder, "context/nemo_tokenizer/tokenizer.json"),
        join(folder, "isologit.origin/tokenizer.json"),
      );
      return await verify(a, folder);
    },
  },
  {
    name: "packed-config",
    what: "config.json inside a packed file is altered in place",
    right: "red",
    async run(at) {
      const [a] = await pair(at, {});
      const packed = await made("convert", a, join(at, "c.isologit"));
      const text = readFileSync(packed).toString("latin1");
      expect(text).toContain('"layer_norm_epsilon": 1e-05');
      writeFileSync(
        packed,
        text.replaceAll('"layer_norm_epsilon": 1e-05', '"layer_norm_epsilon": 1e-02'),
        "latin1",
      );
      return await verify(a, packed);
    },
  },
  {
    name: "packed-tensor-damaged",
    what: "one bit of a tensor in a packed file without a certificate is flipped, its digests are left; then home",
    right: "red",
    run: damaged("--verify", "off"),
  },
  {
    name: "packed-tensor-damaged-certified",
    what: "one bit of a tensor in a packed file with a certificate is flipped; then home",
    right: "red",
    run: damaged(),
  },
  {
    name: "certified-source-damaged",
    what: "one weight bit of a certified folder is flipped, and it is converted on",
    right: "told",
    tells: /certif/,
    async run(at) {
      const folder = await made("convert", await copied("tiny", join(at, "a")), join(at, "c"), "--to", "hf");
      const path = join(folder, "model.safetensors");
      const bytes = readFileSync(path);
      bytes[bytes.length - 77]! ^= 0x40;
      writeFileSync(path, bytes);
      return await convert(folder, join(at, "p.isologit"));
    },
  },
  {
    name: "f16-unread-infinity",
    what: "a recast to F16 leaves an infinity in a row that no prompt reads",
    right: "told",
    async run(at) {
      const source = await copied("tiny", join(at, "a"), (one) =>
        one.values("backbone.embeddings.weight", (value, i) => (i === 512 * 64 - 1 ? 3e38 : value)),
      );
      return await ask(["recast", source, join(at, "c"), "--dtype", "f16", "--allow-overflow"]);
    },
  },
];

attacks("NeMo, Megatron, packed", rows);
