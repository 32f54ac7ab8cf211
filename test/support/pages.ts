/** The command lines of the documents, and a folder in which a reader could type them. */
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { expect } from "vitest";
import { golden } from "./goldens.ts";
import { shell } from "./program.ts";

const root = new URL("../..", import.meta.url).pathname;

/** Lines that cannot run here, and why. */
export const CANNOT_RUN: readonly (readonly [RegExp, string])[] = [
  [/hf:\/\/|^isologit (download|upload|auth|cache (verify|rm)) /, "it needs the Hub"],
  [/^npm /, "it installs packages, or runs the tests"],
  [/^python3 -c|^mkdir -p parts/, "it needs torch, and checkpoints of other software"],
  [/--backend webgpu|--device H100/, "it needs a GPU"],
  [/--sign sigstore|--trusted-root/, "it needs the services of Sigstore"],
  [
    /^isologit prune (\.\/56b|.*--(drop 7,29|ffn 16384))/,
    "it needs the widths and layers of the published models",
  ],
  [
    /^isologit (convert --plan|merge) plan\.json(?!.*--overwrite)/,
    "it needs a plan, as docs/many-machines.md makes",
  ],
  [/^isologit dispatch |^kubectl /, "it needs a cluster"],
  [/--iteration 1200/, "it needs a run with the vocabulary of the published models"],
  [
    /^isologit verify \S+( --bundle model.sig)? --public-key release.pem/,
    "it needs what docs/signing.md makes",
  ],
];

/** Examples of the help texts, in their shortest form: a destination that exists is refused, and the error names --overwrite. */
const REFUSED_AGAIN = /^isologit (convert|recast|logits|prune|importance) (?!.*--(overwrite|resume))/;

/** Lines that find a problem in what they are given, or a difference. */
const EXITS_1 = /^isologit (check \.\/(damaged|nemotron-nano-fp8)|scan model\.nemo$|diff \.\/hf \.\/hf-fp8)/;

export interface DocumentedLine {
  readonly line: string;
  /** undefined: it can run */
  readonly cannot: string | undefined;
}

/** README.md and every page of docs that has shell blocks. */
export const PAGES: readonly string[] = [
  "README.md",
  ...readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" }).map((file) => `docs/${file}`),
]
  .filter((file) => file.endsWith(".md") && blocksIn(file).length > 0)
  .sort();

/** Pages whose lines take minutes together. */
export const LONG_PAGES: readonly string[] = [
  "docs/cli.md",
  "docs/recipes.md",
  "docs/backends.md",
  "docs/pruning.md",
  "docs/signing.md",
  "docs/extending.md",
  "docs/recording-references.md",
  "docs/generate.md",
  "docs/formats.md",
  "docs/many-machines.md",
  "docs/tasks/publish-fp8.md",
  "docs/tasks/fit-a-card.md",
  "docs/tasks/nemo-to-vllm.md",
  "docs/verification.md",
  "docs/certificates.md",
];

/** The shell blocks of a page, each as its lines. In a block of the kind `console` a line begins with `$`. */
export function blocksIn(page: string): readonly (readonly DocumentedLine[])[] {
  const text = readFileSync(join(root, page), "utf8");
  return [...text.matchAll(/^```(sh|console)\n(.*?)^```/gms)].map(([, kind, block]) => {
    const typed = block!.replace(/\\\n/g, " ").split("\n");
    return typed
      .filter((line) => line !== "" && (kind === "sh" || line.startsWith("$ ")))
      .map((line) => line.replace(/^\$ (npx )?/, ""))
      .map((line) => ({ line, cannot: CANNOT_RUN.find(([pattern]) => pattern.test(line))?.[1] }));
  });
}

/**
 * Runs each block of a page twice in a row, a page by task as a whole.
 *
 * @param lineMs most time of a line; default: that of every program in the tests
 * @returns what the page printed
 */
export async function runTwice(page: string, folder: string, lineMs?: number): Promise<string> {
  await furnish(folder, page);
  const blocks = blocksIn(page);
  let printed = "";
  for (const block of page.startsWith("docs/tasks/") ? [blocks.flat()] : blocks) {
    for (const isAgain of [false, true]) {
      for (const { line, cannot } of block) {
        if (cannot !== undefined) continue;
        const options = { cwd: folder, env: { ...process.env, HOME: folder } };
        const { status, stdout, stderr } = await shell(line, options, lineMs);
        const refused = isAgain && page === "docs/cli.md" && REFUSED_AGAIN.test(line);
        const shown = `${isAgain ? "again" : "once"}: ${line}\n${stdout.slice(0, 2000)}${stderr}`;
        expect(status, shown).toBe(refused ? 2 : EXITS_1.test(line) ? 1 : 0);
        if (refused) expect(stdout + stderr, shown).toContain("pass --overwrite");
        printed += stdout;
      }
    }
  }
  return printed;
}

/** Makes a checkpoint from the folder `source`. */
const MAKE = {
  fp8: "recast source NAME --dtype fp8-e4m3",
  nemo2: "convert source NAME --to nemo2",
  packed: "convert source NAME",
} as const;

/** The checkpoints that pages read: `source` under another name, a form of it, or a fixture. */
const CHECKPOINTS: Readonly<Record<string, "source" | keyof typeof MAKE | `fixtures/${string}`>> = {
  ...{ "nemotron-h-8b": "source", nemotron: "source", hf: "source", trusted: "source", "my-model": "source" },
  ...{ candidate: "source", a: "source", b: "source", downloaded: "source", damaged: "source" },
  ...{ "nemotron-fp8": "fp8", "nemotron-h-8b-fp8": "fp8", "hf-fp8": "fp8", fp8: "fp8", nemo2: "nemo2" },
  ...{ "model.isologit": "packed", "nemotron.isologit": "packed" },
  ...{ "my-nemo": "fixtures/nemotron-h/nemo2-tiny", "nemo2-folder": "fixtures/nemotron-h/nemo2-tiny" },
  "nemotron-nano-fp8": "fixtures/fp8-dialects/fp8-tensor-hf",
  "model.nemo": "fixtures/nemotron-h/nemo1-tiny.nemo",
  "pytorch_model.bin": "fixtures/nemotron-h/nemo2-tiny/weights/common.pt",
  "model.safetensors": "fixtures/nemotron-h/trained/model.safetensors",
  "reference.safetensors": "fixtures/nemotron-h/trained/reference.safetensors",
  "ref.safetensors": "fixtures/nemotron-h/trained/reference.safetensors",
  ...Object.fromEntries(
    [
      "fixtures/nemotron-h/trained",
      "fixtures/minipuzzle/parent",
      "fixtures/minipuzzle/parent.calibration.json",
      "fixtures/minipuzzle/parent.heldout.json",
    ].map((name) => [name, name as `fixtures/${string}`]),
  ),
};

/** A pickle that would run a program. */
const DANGEROUS = "cos\nsystem\n(S'true'\ntR.";

/** Makes what a page reads and does not make itself. */
async function furnish(folder: string, page: string): Promise<void> {
  const lines = blocksIn(page)
    .flat()
    .flatMap(({ line, cannot }) => (cannot === undefined ? [line] : []));
  /** Whether the first line that names it reads it. */
  const isRead = (name: string): boolean => {
    const place = `(\\./)?${name.replaceAll(".", "[.]")}(?=[ /]|$)`;
    const first = lines.find((line) => new RegExp(` ${place}`).test(line));
    return first !== undefined && !new RegExp(`^isologit (convert|recast|plan) +\\S+ ${place}`).test(first);
  };
  const at = (name: string) => join(folder, name);
  const copy = (from: string, name: string) => cpSync(from, at(name), { recursive: true });
  copy(golden("trained"), "source");
  copy(golden("tiny/chat_template.jinja"), "source/chat_template.jinja");
  for (const [name, from] of Object.entries(CHECKPOINTS).filter(([name]) => isRead(name))) {
    if (from === "source") copy(at("source"), name);
    else if (from.startsWith("fixtures/")) copy(join(root, from), name);
    else {
      const line = `isologit ${MAKE[from as keyof typeof MAKE].replace("NAME", name)}`;
      const { status, stderr } = await shell(line, { cwd: folder });
      expect(status, stderr).toBe(0);
    }
  }
  if (page === "docs/extending.md") {
    cpSync(join(root, "fixtures/plugin"), folder, { recursive: true });
    mkdirSync(at("node_modules"));
    symlinkSync(root, at("node_modules/isologit"));
  }
  if (isRead("damaged")) truncateSync(at("damaged/model.safetensors"), 1000);
  if (page === "docs/checking.md") writeFileSync(at("model.nemo"), DANGEROUS);
  writeFileSync(at("calibration.txt"), "The lamp on the desk was warm.\nThe teacher sang a song.\n");
  writeFileSync(at("careful.yaml"), "id: careful\ncast: [ssm.*, mlp.*]\nkeep_layers: [2]\n");
  for (const place of [".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"])
    mkdirSync(at(place), { recursive: true });
}
