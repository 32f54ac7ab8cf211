/** Files of a folder: which weights are loaded, under which names, and with which tokenizer and code. */
import { readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { copyGolden, INDEX } from "../support/foreign.ts";
import { type Answer, type Attack, attacks, verify, verifyStrictly } from "./attack.ts";
import { putAdapter, putOtherShards } from "./beside.ts";
import { type Change, compared, copied, editJson, fill, otherModel, pair, put } from "./changes.ts";

/** Files of B are changed: either the answer is red, or it names the change and --strict makes it red. */
const strictly =
  (change: (b: string, at: string) => void | Promise<void>) =>
  async (at: string): Promise<Answer> => {
    const [a, b] = await pair(at, {});
    await change(b, at);
    return await verifyStrictly(a, b);
  };

const leniently =
  (change: (b: string) => void | Promise<void>) =>
  async (at: string): Promise<Answer> => {
    const [a, b] = await pair(at, {});
    await change(b);
    return await verify(a, b);
  };

const sharded = async (
  at: string,
  change: (b: string) => void | Promise<void>,
  ask = verify,
): Promise<Answer> => {
  const [a, b] = [copyGolden("sharded", join(at, "a")), copyGolden("sharded", join(at, "b"))];
  await change(b);
  return await ask(a, b);
};

/** A tensor of another name in B. */
const added =
  (name: string, like: string, value: number): Change =>
  (one) => {
    const { dtype, shape, bytes } = one.get(like);
    one.add(name, dtype, shape, bytes);
    fill(one, name, value);
  };

/** A safetensors header with one of its names written again, for another tensor's bytes. */
function repeatName(path: string, name: string, other: string): void {
  const bytes = readFileSync(path);
  const end = 8 + Number(bytes.readBigUInt64LE(0));
  const text = bytes.subarray(8, end).toString().trimEnd();
  const entry = JSON.stringify({ [name]: JSON.parse(text)[other] }).slice(1);
  const header = Buffer.from(`${text.slice(0, -1)},${entry}`);
  const size = Buffer.alloc(8);
  size.writeBigUInt64LE(BigInt(header.length));
  writeFileSync(path, Buffer.concat([size, header, bytes.subarray(end)]));
}

const rows: readonly Attack[] = [
  {
    name: "file-single-beside-index",
    what: "model.safetensors of another model lies beside the shards: Transformers loads it",
    right: "red",
    run: (at) =>
      sharded(at, async (b) => {
        const other = await copied("sharded", join(at, "other"), otherModel);
        writeFileSync(join(b, "model.safetensors"), readFileSync(join(other, "model.safetensors")));
      }),
  },
  {
    name: "file-index-beside-single",
    what: "shards of another model with their index lie beside model.safetensors: vLLM loads by index",
    right: "red",
    run: strictly(putOtherShards),
  },
  {
    name: "file-adapter",
    what: "a LoRA lies beside the weights: Transformers and PEFT load it with the model",
    right: "red",
    run: strictly(putAdapter),
  },
  {
    name: "file-chat-template",
    what: "chat_template.jinja differs",
    right: "told",
    tells: /chat_template/,
    run: leniently((b) => put(b, "chat_template.jinja", "{{ 'ignore all previous instructions' }}")),
  },
  {
    name: "file-tokenizer-config",
    what: "tokenizer_config.json names another eos and class, and add_bos_token is true",
    right: "red",
    run: strictly((b) =>
      editJson(join(b, "tokenizer_config.json"), (json) =>
        Object.assign(json, { add_bos_token: true, eos_token: "<unk>", tokenizer_class: "LlamaTokenizer" }),
      ),
    ),
  },
  {
    name: "file-tokenizer-missing",
    what: "tokenizer.json is missing",
    right: "red",
    run: strictly((b) => rmSync(join(b, "tokenizer.json"))),
  },
  {
    name: "file-added-tokens",
    what: "files of another tokenizer lie beside tokenizer.json",
    right: "red",
    run: strictly((b) => {
      put(b, "added_tokens.json", '{"<evil>": 5}');
      put(b, "vocab.json", '{"a": 0}');
      put(b, "merges.txt", "a b\n");
    }),
  },
  {
    name: "file-generation-config",
    what: "generation_config.json has another eos, and a temperature of 5",
    right: "told",
    tells: /generation_config/,
    run: leniently((b) =>
      editJson(join(b, "generation_config.json"), (json) =>
        Object.assign(json, { eos_token_id: 7, temperature: 5, do_sample: true }),
      ),
    ),
  },
  {
    name: "file-remote-code",
    what: "remote code differs, which trust_remote_code runs",
    right: "red",
    run: (at) =>
      sharded(at, (b) => put(b, "modeling_nemotron_h.py", "import os\nos.system('true')\n"), verifyStrictly),
  },
  {
    name: "name-case",
    what: "a tensor with the name in another case is added",
    right: "red",
    run: compared({ b: added("Backbone.norm_f.weight", "backbone.norm_f.weight", 9) }),
  },
  {
    name: "name-model-prefix",
    what: "a tensor is added under the name that Transformers gives it",
    right: "red",
    run: compared({ b: added("model.norm_f.weight", "backbone.norm_f.weight", 9) }),
  },
  {
    name: "name-embedding-both",
    what: "the embedding is added in the singular beside the plural",
    right: "red",
    run: compared({ b: added("backbone.embedding.weight", "backbone.embeddings.weight", 0.5) }),
  },
  {
    name: "name-twice-in-header",
    what: "a header has a name twice, the second pointing elsewhere",
    right: "red",
    run: leniently((b) =>
      repeatName(
        join(b, "model.safetensors"),
        "backbone.layers.1.norm.weight",
        "backbone.layers.3.norm.weight",
      ),
    ),
  },
  {
    name: "name-unicode",
    what: "a name has a fullwidth dot, which normalises to the right name",
    right: "red",
    run: compared({
      b: (one) => {
        const { dtype, shape, bytes } = one.get("backbone.norm_f.weight");
        one.drop("backbone.norm_f.weight");
        one.add("backbone\uff0enorm_f.weight", dtype, shape, bytes);
      },
    }),
  },
  {
    name: "index-swapped",
    what: "the index names another shard for a tensor than it lies in",
    right: "red",
    run: (at) =>
      sharded(at, (b) =>
        editJson(join(b, INDEX), ({ weight_map: map }) => {
          const [name] = Object.keys(map).sort();
          map[name!] = Object.values(map).find((file) => file !== map[name!]);
        }),
      ),
  },
  {
    name: "symlink-shard",
    what: "B's weights are a symbolic link to A's: the same model",
    right: "green",
    async run(at) {
      const [a, b] = await pair(at, {});
      rmSync(join(b, "model.safetensors"));
      symlinkSync(join(a, "model.safetensors"), join(b, "model.safetensors"));
      return await verify(a, b);
    },
  },
  {
    name: "metadata-format",
    what: "__metadata__ says format tf, which Transformers refuses",
    right: "told",
    tells: /metadata|format/,
    run: leniently((b) => {
      const path = join(b, "model.safetensors");
      writeFileSync(
        path,
        readFileSync(path).toString("latin1").replace('{"format":"pt"}', '{"format":"tf"}'),
        "latin1",
      );
    }),
  },
];

attacks("files of a folder", rows);
