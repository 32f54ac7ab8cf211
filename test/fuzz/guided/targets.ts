/** Every parser of bytes that strangers write, each as a function of those bytes, with the fixtures that a fuzzer begins with. */
import { generateKeyPairSync } from "node:crypto";
import { readGgufHeader } from "../../../formats/codec/gguf/header.ts";
import { decodeMsgpack } from "../../../formats/codec/msgpack.ts";
import { readPickle } from "../../../formats/codec/pickle/read.ts";
import { parseHeader, readHeader } from "../../../formats/codec/safetensors.ts";
import { tarStore } from "../../../formats/codec/tar/read.ts";
import { readTorch } from "../../../formats/codec/torch-zip/read.ts";
import { readExtraState } from "../../../formats/codec/transformer-engine/extra-state.ts";
import { parseYaml } from "../../../formats/codec/yaml.ts";
import { readZarr } from "../../../formats/codec/zarr.ts";
import { ggufFacts } from "../../../formats/gguf/facts.ts";
import { gguf } from "../../../formats/gguf/format.ts";
import { tokenizerFiles } from "../../../formats/gguf/tokenizer/files.ts";
import { tokenizerKeys } from "../../../formats/gguf/tokenizer/keys.ts";
import { parseIndex } from "../../../formats/hf/index-json.ts";
import { formats } from "../../../formats/index.ts";
import { packed } from "../../../formats/packed/format.ts";
import { packedDamage } from "../../../formats/packed/read.ts";
import { decodeCertificate } from "../../../src/certificate/certificate.ts";
import { nearMissAt } from "../../../src/checkpoint/near-misses/recognise.ts";
import { IsologitError } from "../../../src/core/errors.ts";
import type { Finding } from "../../../src/core/finding.ts";
import { parseJson } from "../../../src/core/json.ts";
import { families } from "../../../src/families/index.ts";
import { addressOf, isHubAddress } from "../../../src/io/address.ts";
import { gunzipOnce } from "../../../src/io/gunzip.ts";
import { parseRecipe } from "../../../src/quantization/recipe.ts";
import { type Report, scanBare, scanZips } from "../../../src/scan/pickles.ts";
import { scanTemplate } from "../../../src/scan/template.ts";
import { scanText } from "../../../src/scan/text.ts";
import { openBundle } from "../../../src/signing/sigstore-bundle.ts";
import { decodeStatement } from "../../../src/signing/statement.ts";
import { chatOf } from "../../../src/tokenizer/chat.ts";
import { tokenizerOf } from "../../../src/tokenizer/tokenizer.ts";
import { memorySource, memoryStore } from "../../support/memory-store.ts";
import { filesIn, load } from "./folders.ts";

export interface Target {
  /** paths of fixtures that the parser reads */
  readonly seeds: readonly string[];
  readonly run: (bytes: Uint8Array) => unknown;
  /** reads a whole checkpoint, and gets a tenth of the inputs */
  readonly isSlow?: true;
}

const at = { file: "x" };
const source = (bytes: Uint8Array) => memorySource("x", bytes);
const storeOf = (bytes: Uint8Array, name = "x") => memoryStore("m", new Map([[name, bytes]]));
const textOf = (bytes: Uint8Array) => Buffer.from(bytes).toString("utf8");

/** A folder of fixtures with one file replaced. */
function inFolder(folder: string, path: string): Target {
  const files = filesIn(folder);
  return { seeds: [`${folder}/${path}`], run: (bytes) => load(new Map(files).set(path, bytes)) };
}

/** What a scan finds; damage is a finding there. */
function quietReport(): Report {
  const findings: Finding[] = [];
  return {
    file: "x",
    of: quietReport,
    add: (finding) => void findings.push(finding),
    damaged(error) {
      if (!(error instanceof IsologitError)) throw error;
    },
  };
}

/** The bytes after `from` as zeros: tensors need not be made by the fuzzer. */
const withZeros = (bytes: Uint8Array, count: number) =>
  new Uint8Array(Buffer.concat([bytes, new Uint8Array(count)]));

const KEY = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
const TINY = filesIn("nemotron-h/tiny");
const PICKLES = "hostile/pickles";

export const TARGETS: Readonly<Record<string, Target>> = {
  safetensors: {
    seeds: ["fp8-hf/edge/src.safetensors", "fp8-hf/edge/expected.safetensors"],
    async run(bytes) {
      await readHeader(source(bytes));
    },
  },
  "safetensors-header": {
    seeds: [],
    run: (bytes) => parseHeader(bytes, "x"),
  },
  "hf-index": {
    seeds: ["nemotron-h/sharded/model.safetensors.index.json"],
    run: (bytes) => parseIndex(bytes, "x", { roots: [] }),
  },
  "hf-config": inFolder("nemotron-h/tiny", "config.json"),
  "hf-config-moe": inFolder("nemotron-h/latent-moe", "config.json"),
  "hf-config-llama": inFolder("families/llama", "config.json"),
  "hf-config-falcon": inFolder("families/falcon_h1", "config.json"),
  "hf-config-quantized": inFolder("fp8-dialects/ct-nvfp4", "config.json"),
  pickle: {
    seeds: ["hostile/pickles/dcp-base/.metadata", "nemotron-h/nemo2-tiny/weights/.metadata"],
    run: (bytes) => readPickle(bytes, at),
  },
  "torch-archive": {
    seeds: [`${PICKLES}/benign-tensor.pt`, `${PICKLES}/proto-pollution.pt`, "extra-states/te2-current.pt"],
    run: (bytes) => readTorch(source(bytes), at),
  },
  "dist-metadata": { ...inFolder("nemotron-h/nemo2-tiny", "weights/.metadata"), isSlow: true },
  "dist-common": { ...inFolder("nemotron-h/nemo2-tiny", "weights/common.pt"), isSlow: true },
  "nemo2-record": { ...inFolder("nemotron-h/nemo2-tiny", "context/io.json"), isSlow: true },
  "bridge-record": {
    ...inFolder("nemotron-h/megatron-bridge-moe", "iter_0000100/run_config.yaml"),
    isSlow: true,
  },
  tar: {
    seeds: [`${PICKLES}/tar-no-config.nemo`, `${PICKLES}/tar-pax-dotdot.nemo`],
    async run(bytes) {
      await (await tarStore(storeOf(bytes), "x")).list();
    },
  },
  nemo1: {
    seeds: [`${PICKLES}/tar-ckpt-system.nemo`],
    run: (bytes) => load(new Map([["x.nemo", bytes]])),
  },
  gzip: {
    seeds: [],
    run: (bytes) => gunzipOnce(storeOf(bytes), { maxBytes: 1 << 20 }),
  },
  zarr: {
    seeds: [],
    run: (bytes) =>
      readZarr(
        memoryStore(
          "m",
          new Map([
            ["w/.zarray", bytes],
            ...["0.0", "1.0"].map((name) => [`w/${name}`, new Uint8Array(16)] as const),
          ]),
        ),
        "",
      ),
  },
  "gguf-header": {
    seeds: [],
    run: (bytes) => readGgufHeader(source(withZeros(bytes, 1 << 16)), "x"),
  },
  gguf: {
    seeds: ["hostile/gguf/ok-unknown-keys.gguf"],
    async run(bytes) {
      ggufFacts(await load(new Map([["m.gguf", bytes]]), gguf));
    },
  },
  "gguf-tokenizer": {
    seeds: [],
    async run(bytes) {
      const whole = withZeros(bytes, 1 << 16);
      await tokenizerFiles((await readGgufHeader(source(whole), "x")).metadata, storeOf(whole));
    },
  },
  "tokenizer-model": {
    seeds: ["sentencepiece/tokenizer.model"],
    run: (bytes) => tokenizerKeys(new Map([["tokenizer.model", bytes]]), 600),
  },
  "tokenizer-json": {
    seeds: ["sentencepiece/tokenizer.json", "nemotron-h/tiny/tokenizer.json"],
    run: (bytes) => tokenizerKeys(new Map([["tokenizer.json", bytes]]), 600),
  },
  packed: {
    seeds: ["hostile/packed/head-size.isologit", "hostile/packed/index-tail.isologit"],
    async run(bytes) {
      const files = new Map([["x.isologit", bytes]]);
      for await (const _ of packedDamage(memoryStore("m", files))) break;
      await load(files, packed);
    },
  },
  msgpack: {
    seeds: [],
    run: (bytes) => decodeMsgpack(bytes, { depth: 8, items: 10_000, values: 100_000 }, at),
  },
  json: {
    seeds: ["nemotron-h/tiny/config.json"],
    run: (bytes) => parseJson(bytes, { nonFinite: true }),
  },
  yaml: {
    seeds: ["nemotron-h/megatron-bridge-moe/iter_0000100/run_config.yaml"],
    run: (bytes) => parseYaml(bytes, at),
  },
  recipe: {
    seeds: [],
    run: (bytes) => parseRecipe(textOf(bytes), "x", families[0]!.roles),
  },
  tokenizer: {
    seeds: ["families/qwen2/tokenizer.json"],
    async run(bytes) {
      const tokenizer = await tokenizerOf(await load(new Map(TINY).set("tokenizer.json", bytes)));
      tokenizer?.decode(tokenizer.encode("The quick brown fox. Ein Bär!").slice(0, 50));
    },
  },
  "tokenizer-config": {
    seeds: ["nemotron-h/tiny/tokenizer_config.json"],
    async run(bytes) {
      const checkpoint = await load(new Map(TINY).set("tokenizer_config.json", bytes));
      await tokenizerOf(checkpoint);
      await chatOf(checkpoint, "hello");
    },
  },
  certificate: {
    seeds: [],
    run: (bytes) => decodeCertificate(bytes, "x"),
  },
  bundle: {
    seeds: [],
    async run(bytes) {
      const { publicKey } = KEY;
      await openBundle(bytes, { kind: "key", key: publicKey }, "x");
    },
  },
  statement: {
    seeds: [],
    run: (bytes) => decodeStatement(bytes, "x"),
  },
  "extra-state": {
    seeds: ["extra-states/te2-delayed.pt", "extra-states/te1-none.pt"],
    run: (bytes) => readExtraState(source(new Uint8Array()), bytes, at),
  },
  "scan-archive": {
    seeds: [`${PICKLES}/benign-tensor.pt`, `${PICKLES}/dcp-base/__0_0.distcp`],
    run: (bytes) => scanZips(source(bytes), quietReport()),
  },
  "scan-pickle": {
    seeds: [`${PICKLES}/dcp-base/.metadata`],
    run: (bytes) => scanBare(source(bytes), quietReport()),
  },
  "scan-text": {
    seeds: ["nemotron-h/tiny/chat_template.jinja", "nemotron-h/tiny/tokenizer_config.json"],
    run(bytes) {
      scanTemplate(textOf(bytes), "x");
      scanText(textOf(bytes), "x");
    },
  },
  "near-miss": {
    seeds: ["near-misses/dcp-zstd/.metadata"],
    run: (bytes) => nearMissAt(storeOf(bytes, "pytorch_model.bin"), { address: "m", formats }),
  },
  address: {
    seeds: [],
    run: (bytes) => isHubAddress(textOf(bytes)) && addressOf(textOf(bytes)),
  },
};
