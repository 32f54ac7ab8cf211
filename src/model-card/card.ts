/**
 * Writes a model card. The card of the source stays. A conversion adds keys of the Hub to the front matter, and a section
 * at the end with the conversion and the results of its verification. Without a certificate the section says that the
 * files were not verified.
 */
import { isMap, parseDocument } from "yaml";
import { IsologitError } from "../core/errors.ts";
import { formatBytes, formatMeasure, formatPercent, formatQuantity } from "../core/figures.ts";
import type { CardCommand } from "./command.ts";

export interface CardFacts {
  /** `owner/name` that the card is for */
  readonly repo: string;
  readonly format: string;
  /** `quant_method` of the config; null without one */
  readonly quantMethod: string | null;
  /** id of a licence, as the Hub names it; undefined: the card keeps what it says */
  readonly license: string | undefined;
  /** bytes of all tensors */
  readonly bytes: number;
  /** bytes of all tensors before the recast; undefined if that is not known */
  readonly bytesBefore: number | undefined;
  /** `owner/name` of the source */
  readonly baseModel: string | undefined;
  /** some weights are rounded, as far as files and certificate show */
  readonly recast: boolean;
  /** library that loads the files, by its name on the Hub */
  readonly library: string;
  readonly tags: readonly string[];
  /** undefined without a certificate */
  readonly proof: CardProof | undefined;
}

/** Facts of a valid certificate that the card repeats. */
export interface CardProof {
  readonly verdict: "same" | "within";
  readonly tool: string;
  readonly sha256: string;
  /** format of the source */
  readonly source: string;
  /** number of weights by recast, such as "BF16 to F8_E4M3": 12 */
  readonly recast: Readonly<Record<string, number>>;
  /** in one sentence, which weights the recipe casts; undefined without a recast */
  readonly recipe: string | undefined;
  readonly limits: Readonly<Record<string, number>>;
  /** of the two forward passes; undefined if none ran */
  readonly logits: { readonly tokens: number; readonly klMean: number; readonly top1: number } | undefined;
  /** command that makes these files from the source; undefined if the certificate does not have the options */
  readonly command: CardCommand | undefined;
  readonly rungs: readonly {
    readonly rung: string;
    readonly verdict: string;
    readonly metrics: readonly string[];
  }[];
}

const OPEN = "<!-- isologit: written by `isologit upload`, replaced by the next -->";
const CLOSE = "<!-- /isologit -->";

/**
 * @param existing the card that exists now: from the folder or, if it has none, from the repository
 * @throws CONFIG_INVALID: the front matter cannot be read
 */
export function cardOf(existing: string | undefined, facts: CardFacts, title: string): string {
  const { front, body } = parts(existing ?? "");
  const own = section(facts);
  const rest = withoutSection(body);
  const text = rest.trim() === "" ? `# ${title}\n` : rest.trimEnd();
  return `---\n${frontMatter(front, facts)}---\n\n${text.trim()}\n\n${own}\n`;
}

/** The keys that the Hub shows first, and that the card does not have. */
export function missingKeys(card: string): readonly ("license" | "base_model")[] {
  const document = parseDocument(parts(card).front);
  return (["license", "base_model"] as const).filter((key) => !document.has(key));
}

function parts(card: string): { front: string; body: string } {
  const [, front, body] =
    /^\uFEFF?---\r?\n(?:([\s\S]*?)\r?\n)?---[ \t]*(?:\r?\n|$)([\s\S]*)$/.exec(card) ?? [];
  return body === undefined ? { front: "", body: card } : { front: front ?? "", body };
}

/** Comments, the order of keys and unknown keys do not change. */
function frontMatter(text: string, facts: CardFacts): string {
  const document = parseDocument(text);
  if (document.errors.length > 0 || !(document.contents === null || isMap(document.contents))) {
    const why = document.errors[0]?.message.split("\n")[0] ?? "no keys";
    throw new IsologitError(
      "CONFIG_INVALID",
      `the front matter cannot be read: ${why}`,
      { file: "README.md" },
      {
        next: "repair README.md, or remove the file",
      },
    );
  }
  if (facts.baseModel !== undefined) {
    document.set("base_model", facts.baseModel);
    if (facts.recast) document.set("base_model_relation", "quantized");
    else document.delete("base_model_relation");
  }
  if (facts.license !== undefined) document.set("license", facts.license);
  document.set("library_name", facts.library);
  if (facts.library === "transformers" && !document.has("pipeline_tag"))
    document.set("pipeline_tag", "text-generation");
  const before: unknown = document.toJS()?.tags;
  const tags = Array.isArray(before) ? before.filter((tag) => typeof tag === "string") : [];
  document.set("tags", [...new Set([...tags, ...facts.tags])]);
  const index = modelIndex(document.toJS()?.["model-index"], facts);
  if (index.length > 0) document.set("model-index", index);
  return document.toString({ lineWidth: 0 });
}

/** Names the entries that this program writes. */
const DATASET = "isologit-verification";

/** The `model-index` with the measures of the verification; entries of others stay. */
function modelIndex(before: unknown, { repo, proof }: CardFacts): readonly unknown[] {
  const others = (Array.isArray(before) ? before : []).filter(
    (entry) => entry?.results?.[0]?.dataset?.type !== DATASET,
  );
  const { logits } = proof ?? {};
  if (logits === undefined) return others;
  const { tokens, klMean, top1 } = logits;
  const result = {
    task: { type: "text-generation" },
    dataset: { type: DATASET, name: `${tokens} tokens, compared with the base model` },
    metrics: [
      { type: "kl_divergence", name: "mean KL divergence from the base model, nats", value: klMean },
      { type: "top1_agreement", name: "agreement of the most probable token", value: top1 },
    ],
  };
  return [...others, { name: repo.split("/")[1]!, results: [result] }];
}

function withoutSection(body: string): string {
  const from = body.indexOf(OPEN);
  if (from < 0) return body;
  const to = body.indexOf(CLOSE, from);
  return body.slice(0, from) + (to < 0 ? "" : body.slice(to + CLOSE.length));
}

function section(facts: CardFacts): string {
  const { proof, baseModel } = facts;
  const base = baseModel === undefined ? "" : `[${baseModel}](https://huggingface.co/${baseModel})`;
  return [
    OPEN,
    ...(proof === undefined ? unprovenLines(base) : provenLines(facts, proof, base)),
    "",
    ...servingLines(facts),
    CLOSE,
  ].join("\n");
}

/** Section without a certificate. The source is known only from the user. */
const unprovenLines = (base: string): string[] => [
  "## What was proved of these files",
  "",
  "No certificate came with them. Nothing was proved of them.",
  ...(base === "" ? [] : ["", `The uploader names ${base} as the source of these files.`]),
];

function provenLines(facts: CardFacts, proof: CardProof, base: string): string[] {
  const { verdict, tool, sha256, rungs } = proof;
  return [
    "## How these files were made",
    "",
    `Converted${base === "" ? "" : ` from ${base}`} with Isologit. ${recastText(facts, proof)}`,
    "",
    ...commandLines(proof),
    "",
    "## What was proved",
    "",
    `**Verdict: ${cell(verdict)}**, by ${cell(tool)}. Its certificate has SHA-256 \`${cell(sha256)}\`; with it, anybody can check these files: \`npx isologit verify hf://${facts.repo}\`.`,
    "",
    `${proofText(proof)} It was not measured how well the model answers, on any benchmark, and no inference engine was run.`,
    "",
    "| rung | verdict | measured |",
    "| ---- | ------- | -------- |",
    ...rungs.map(
      ({ rung, verdict: rungVerdict, metrics }) =>
        `| ${cell(rung)} | ${cell(rungVerdict)} | ${metrics.map(cell).join(", ")} |`,
    ),
  ];
}

/** Which weights were rounded, and the sizes before and after. */
function recastText({ bytes, bytesBefore }: CardFacts, { recast, recipe }: CardProof): string {
  const counts = Object.entries(recast);
  if (counts.length === 0) return `Every bit of the weights was kept. They take ${formatBytes(bytes)}.`;
  const rounded = counts.map(([what, count]) => `${formatQuantity(count, "weight")} from ${cell(what)}`);
  const before = bytesBefore === undefined ? "" : `, and ${formatBytes(bytesBefore)} before`;
  const chosen = recipe === undefined ? "" : ` ${recipe}`;
  return `It rounded ${rounded.join(", and ")}; every bit of the others was kept.${chosen} The weights take ${formatBytes(bytes)}${before}.`;
}

/** What the verdict means for these files, with the limits beside the measures. */
function proofText({ verdict, logits, limits }: CardProof): string {
  const ran =
    logits === undefined
      ? "No forward pass ran."
      : `Both checkpoints ran on the same ${formatQuantity(logits.tokens, "token")}`;
  const weights =
    verdict === "same"
      ? "Every weight was compared, and is the same bit by bit."
      : "Every weight was compared, and is the same or the nearest value of its new type.";
  if (logits === undefined) return `${weights} ${ran}`;
  const { klMean, top1 } = logits;
  const limit = limits.klMean === undefined ? "" : ` (limit ${formatMeasure(limits.klMean)})`;
  return verdict === "same"
    ? `${weights} ${ran}, each with its own tensors, and computed the same logits.`
    : `${weights} ${ran}, each with its own tensors: the mean KL divergence of the next token is ${formatMeasure(klMean)} nats${limit}, and the most probable token agrees at ${formatPercent(top1)} of the positions.`;
}

/** Commands that serve the files, as far as their format allows. */
function servingLines({ repo, format, quantMethod }: CardFacts): string[] {
  const code = (lines: readonly string[]) => ["```sh", ...lines, "```"];
  if (format !== "hf") {
    const command = `npx isologit convert hf://${repo} ./model --to hf`;
    return [
      "## How to serve it",
      "",
      "Engines load a Hugging Face folder, which this makes:",
      "",
      ...code([command]),
    ];
  }
  const engines: Readonly<Record<string, readonly string[]>> = {
    vLLM: [`vllm serve ${repo}`],
    SGLang: [`python -m sglang.launch_server --model-path ${repo}`],
    "TensorRT-LLM": [`trtllm-serve ${repo}`],
    Transformers: [
      `python -c 'from transformers import pipeline; print(pipeline("text-generation", "${repo}")("Hello"))'`,
    ],
  };
  const loads = ENGINES[quantMethod ?? ""] ?? ["vLLM"];
  return ["## How to serve it", "", ...code(loads.flatMap((engine) => [`# ${engine}`, ...engines[engine]!]))];
}

/** Engines that load weights of a `quant_method`; "" without one. */
const ENGINES: Readonly<Record<string, readonly string[]>> = {
  "": ["vLLM", "SGLang", "TensorRT-LLM", "Transformers"],
  "compressed-tensors": ["vLLM", "SGLang", "Transformers"],
  modelopt: ["vLLM", "SGLang", "TensorRT-LLM"],
  fp8: ["vLLM", "SGLang", "Transformers"],
};

function commandLines({ command, tool, source }: CardProof): string[] {
  if (command === undefined) return ["The certificate does not say with which options they were made."];
  const { lines, placeholders } = command;
  const meanings: Readonly<Record<string, string>> = {
    SRC: `SRC is what was converted (${cell(source)})`,
    LIKE: "LIKE is the checkpoint whose side files were taken",
    PLUGIN: "PLUGIN is the module of a plug-in, which only its author can give",
    PROMPT: "PROMPT is the text of the calibration; the certificate has the SHA-256 of its token ids",
  };
  const notes = placeholders.map((word) => `; ${meanings[word]}`).join("");
  return [
    `The same version (${cell(tool)}) makes the same files by this${notes}:`,
    "",
    "```sh",
    ...lines,
    "```",
  ];
}

/** Removes markup from text of a file, so that the text stays in its table cell. */
const cell = (text: string): string => text.replace(/[|<>`\\\r\n]/g, " ").slice(0, 200);
