/** The lines of docs/recording-references.md, run as they stand there; what they record is then asked of the program. */
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { workFolder } from "../support/goldens.ts";
import { copyOf, Editor, written } from "../support/verify/planted.ts";
import { absent, python, record, titled } from "./judge.ts";
import { type Answer, published, verdictOf } from "./program.ts";

const work = workFolder();
const document = readFileSync(new URL("../../docs/recording-references.md", import.meta.url), "utf8");
const standIns = new URL("stand-ins", import.meta.url).pathname;
const nemotron = published("tiny", work);
/** Three times as long as a chunk of the model. */
const ids = Array.from({ length: 200 }, (_, t) => (t * 197 + 11) % 512);

/** The lines of Python under a heading. */
function linesOf(heading: string): string {
  const section = document.split(/^## /m).find((text) => text.startsWith(`${heading}\n`));
  return /```python\n(.*?)```/s.exec(section!)![1]!;
}

let runs = 0;
/** Runs a script beside `./nemotron`. Returns the path of what it recorded. */
function recording(script: string, env: Readonly<Record<string, string>> = {}): string {
  const folder = join(work, `run-${runs++}`);
  mkdirSync(folder);
  cpSync(standIns, folder, { recursive: true });
  cpSync(nemotron, join(folder, "nemotron"), { recursive: true });
  writeFileSync(join(folder, "text.txt"), "The model reads this text through its own tokenizer. ".repeat(40));
  python(script, folder, env);
  return join(folder, "reference.safetensors");
}
/** What the program says of what a script records. */
const recorded = (script: string, env: Readonly<Record<string, string>> = {}): Answer =>
  verdictOf(nemotron, recording(script, env));
const told = (rung: Answer["reference"]) =>
  `${rung?.verdict}; relative L2 ${rung?.metrics.relL2.toExponential(2)}, ${rung?.metrics.tokens} tokens`;

describe.skipIf(absent !== null)(titled("what docs/recording-references.md records"), () => {
  it("with Transformers is met, and its hidden states name a wrong layer", async () => {
    const file = recording(linesOf("Transformers"));
    const { reference } = verdictOf(nemotron, file);
    record("Transformers", told(reference));
    expect(reference).toMatchObject({
      verdict: "same",
      metrics: { arithmetic: "float32", tokens: 300, top1: 1 },
    });
    const editor = new Editor(await copyOf(nemotron));
    editor.swapRows("backbone.layers.5.mixer.in_proj.weight", 256, 288, 32);
    const wrong = verdictOf(written(editor.copy, join(work, "swapped")), file);
    expect(wrong).toMatchObject({ reference: { verdict: "different" }, firstDivergence: { layer: 5 } });
  });

  it("with Transformers on a CPU, without the line for it, is different", () => {
    const lines = linesOf("Transformers").replace(/^if not torch.*\n.*\n/m, "");
    expect(lines).not.toContain("time_step_min");
    expect(recorded(lines).reference?.verdict).toBe("different");
  });

  const vllm = `ids = ${JSON.stringify(ids)}\n${linesOf("vLLM")}`;
  it("with vLLM, by a stand-in, is met", () => {
    const answer = recorded(vllm);
    record("vLLM (a stand-in)", told(answer.reference));
    expect(answer.reference).toMatchObject({
      verdict: "within",
      metrics: { arithmetic: "bfloat16", tokens: 199 },
    });
  });

  it("and off by one position is different, with a row too few no recording", () => {
    expect(recorded(vllm.replace("ids[:-1]", "ids[1:]")).reference?.verdict).toBe("different");
    expect(recorded(vllm, { OFF_BY_ONE: "1" }).error?.code).toBe("USAGE");
  });

  const loaded = `from megatron_model import model\nimport torch\nids = torch.tensor([${JSON.stringify(ids)}])\n`;
  const megatron = loaded + linesOf("NeMo and Megatron");
  it("with Megatron's forward pass, by a stand-in, is met", () => {
    const answer = recorded(megatron);
    record("Megatron (a stand-in)", told(answer.reference));
    expect(answer.reference).toMatchObject({
      verdict: "within",
      metrics: { arithmetic: "bfloat16", tokens: 200 },
    });
  });

  it("and with the ranks' parts not gathered, or in another order, is not", () => {
    const { error } = recorded(megatron.replace("runtime_gather_output=True", "runtime_gather_output=False"));
    expect(error?.code).toBe("USAGE");
    expect(recorded(megatron, { WRONG_ORDER: "1" }).reference?.verdict).toBe("different");
  });
});
