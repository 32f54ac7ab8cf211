/** The competition: torch, Transformers and llama.cpp in the userland that `../shared/oracle` builds. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const oracle = fileURLToPath(new URL("../../../../shared/oracle", import.meta.url)); // from dist/test/bench
const userland = process.env.ORACLE_DIR ?? "/var/tmp/oracle";

/** Why a peer cannot run on a folder here, or undefined. */
export function absent(id: string, source: string): string | undefined {
  if (!["torch", "dcp", "transformers", "llama"].includes(id)) return undefined;
  if (!existsSync(`${oracle}/run`)) return "there is no ../shared/oracle";
  if (!existsSync(`${userland}/.ready`)) return "the userland of ../shared/oracle is not built";
  if (id === "llama" && !existsSync(`${source}.gguf`))
    return `there is no ${source}.gguf: peers/gguf_from_hf.py (Nemotron-H) or llama.cpp's converter writes it, given a tokenizer.json`;
  return undefined;
}

/** A recast by torch and safetensors as careful users write it: amax, division and cast in blocks of 64 rows. */
export const torchRecast = (source: string, out: string): readonly string[] => [
  ...[`${oracle}/run`, "python3", `${oracle}/peers/torch_recast.py`, source, out, "--no-sync"],
];

/** One process that imports, loads and runs 64 tokens once, in BF16, with the scan's chunk cut to what 64 tokens need. */
export const transformers = (source: string): readonly string[] => {
  const { model_type: type } = JSON.parse(readFileSync(`${source}/config.json`, "utf8"));
  return type === "nemotron_h"
    ? [
        ...[`${oracle}/run`, "python3", `${oracle}/peers/hf_forward.py`, source],
        ...["--tokens", "64", "--runs", "0", "--chunk-size", "64"],
      ]
    : [`${oracle}/run`, "python3", "-c", FORWARD, source];
};

/** The same for a model without a scan. */
const FORWARD = `
import sys, torch
from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16).eval()
ids = torch.tensor([[(7919 * i + 13) % model.config.vocab_size for i in range(64)]])
with torch.inference_mode():
    assert torch.isfinite(model(ids, use_cache=False).logits).all()
`;

/** One process that loads and evaluates 64 tokens once, in BF16, without a warm-up. */
export const llama = (source: string, threads: number): readonly string[] => [
  ...[`${oracle}/run`, "llama-bench", "-m", `${source}.gguf`, "-p", "64", "-n", "0"],
  ...["-t", String(threads), "-r", "1", "--no-warmup", "-o", "json"],
];

/** Torch's own writer of distributed checkpoints, on the same model. */
export const torchCheckpoint = (source: string, out: string): readonly string[] => [
  `${oracle}/run`,
  "python3",
  `${oracle}/peers/torch_to_dcp.py`,
  source,
  out,
];
