/**
 * Writes a model card. The card of the source stays. A conversion adds keys of the Hub to the front matter, and a section
 * at the end with the conversion and the results of its verification. Without a certificate the section says that the
 * files were not verified.
 */
import { isMap, parseDocument } from "yaml";
import { IsologitError } from "../core/errors.ts";
import type { CardCommand } from "./command.ts";

export interface CardFacts {
  /** `owner/name` of the source */
  readonly baseModel: string | undefined;
  /** some weights were rounded */
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
  document.set("library_name", facts.library);
  const before: unknown = document.toJS()?.tags;
  const tags = Array.isArray(before) ? before.filter((tag) => typeof tag === "string") : [];
  document.set("tags", [...new Set([...tags, ...facts.tags])]);
  return document.toString({ lineWidth: 0 });
}

function withoutSection(body: string): string {
  const from = body.indexOf(OPEN);
  if (from < 0) return body;
  const to = body.indexOf(CLOSE, from);
  return body.slice(0, from) + (to < 0 ? "" : body.slice(to + CLOSE.length));
}

function section({ proof, baseModel, recast }: CardFacts): string {
  const base = baseModel === undefined ? "" : `[${baseModel}](https://huggingface.co/${baseModel})`;
  return [
    OPEN,
    ...(proof === undefined ? unprovenLines(base) : provenLines(proof, base, recast)),
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

function provenLines(proof: CardProof, base: string, recast: boolean): string[] {
  const { verdict, tool, sha256, rungs } = proof;
  return [
    "## How these files were made",
    "",
    `Converted${base === "" ? "" : ` from ${base}`} with Isologit. ${
      recast ? "Some weights were rounded to another type." : "Every bit of the weights was kept."
    }`,
    "",
    ...commandLines(proof),
    "",
    `**Verdict: ${cell(verdict)}**, by ${cell(tool)}. Its certificate has SHA-256 \`${cell(sha256)}\`.`,
    "",
    "| rung | verdict | measured |",
    "| ---- | ------- | -------- |",
    ...rungs.map(
      ({ rung, verdict: rungVerdict, metrics }) =>
        `| ${cell(rung)} | ${cell(rungVerdict)} | ${metrics.map(cell).join(", ")} |`,
    ),
  ];
}

function commandLines({ command, tool, source }: CardProof): string[] {
  if (command === undefined) return ["The certificate does not say with which options they were made."];
  const { lines, placeholders } = command;
  const meanings: Readonly<Record<string, string>> = {
    SRC: `SRC is what was converted (${cell(source)})`,
    LIKE: "LIKE is the checkpoint whose side files were taken",
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
