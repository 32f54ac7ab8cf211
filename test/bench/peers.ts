/** The competition: torch, Transformers and llama.cpp in the userland that `../shared/oracle` builds. */
import { existsSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const oracle = fileURLToPath(new URL("../../../../shared/oracle", import.meta.url)); // from dist/test/bench
const userland = process.env.ORACLE_DIR ?? "/var/tmp/oracle";

/** Why a peer cannot run here, or undefined. */
export function absent(id: string): string | undefined {
  if (!["torch", "dcp", "transformers", "llama", "ggml", "quantize4", "quantize8"].includes(id))
    return undefined;
  if (!existsSync(`${oracle}/run`)) return "there is no ../shared/oracle";
  if (!existsSync(`${userland}/.ready`)) return "the userland of ../shared/oracle is not built";
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
export const llama = (file: string, threads: number): readonly string[] => [
  ...[`${oracle}/run`, "llama-bench", "-m", file, "-p", "64", "-n", "0"],
  ...["-t", String(threads), "-r", "1", "--no-warmup", "-o", "json"],
];

/** llama-quantize on the same weights, in a BF16 file. */
export const llamaQuantize = (
  file: string,
  out: string,
  kind: string,
  threads: number,
): readonly string[] => [...[`${oracle}/run`, "llama-quantize", file, out, kind, String(threads)]];

/** Prints ggml's millions of weights a second by type, one thread. */
export const ggmlEncoders = (seconds: number): readonly string[] => [
  ...[`${oracle}/run`, "python3", "-c", ENCODE, String(seconds)],
];

const ENCODE = `
import ctypes, glob, json, sys, time, numpy as np
ggml = ctypes.CDLL(sorted(glob.glob("/usr/lib/**/libggml-base.so*", recursive=True))[0])
call = ggml.ggml_quantize_chunk
call.restype = ctypes.c_size_t
call.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
x = ((np.random.rand(3, 1 << 20).sum(0) - 1.5) / 20).astype(np.float32)
out = np.zeros(8 << 20, np.uint8)
rates = {}
for name, number in dict(Q4_0=2, Q4_1=3, Q5_0=6, Q5_1=7, Q8_0=8, Q4_K=12, Q5_K=13, Q6_K=14).items():
    started, runs = time.time(), 0
    while time.time() - started < float(sys.argv[1]):
        call(number, x.ctypes.data, out.ctypes.data, 0, x.size // 256, 256, None)
        runs += 1
    rates[name] = runs * x.size / (time.time() - started) / 1e6
print(json.dumps(rates))
`;

/** Torch's own writer of distributed checkpoints, on the same model. */
export const torchCheckpoint = (source: string, out: string): readonly string[] => [
  `${oracle}/run`,
  "python3",
  `${oracle}/peers/torch_to_dcp.py`,
  source,
  out,
];
