/** `importance`: scores layers and units of a model, for `prune`. */
import { escapeControls, formatBytes, formatMeasure, formatQuantity } from "../../core/figures.ts";
import type { ImportanceOptions, ImportanceReport } from "../../index.ts";
import { defineCommand, SOURCE } from "../command.ts";
import { MACHINE, PROMPTS, SOURCE_OPTIONS, WITH_EVENTS } from "../options.ts";
import { factTable, formatDuration, tableWithHead, type View } from "../render.ts";

const DEFAULT_OUT = "importance.safetensors";

export const importance = defineCommand<ImportanceOptions>({
  name: "importance",
  summary: "score how much the model needs each layer, MLP channel, Mamba head and query head",
  positionals: [SOURCE],
  flags: [...SOURCE_OPTIONS, "out", "cheap", ...PROMPTS, ...MACHINE, "overwrite", ...WITH_EVENTS],
  helps: {
    out: { about: "safetensors file to write", default: DEFAULT_OUT },
    idsFile: {
      about:
        "file with token ids, separated by commas or white space, or as a JSON list; a JSON list of lists is several prompts",
    },
  },
  severalPrompts: true,
  examples: [
    "importance ./nemotron-h-8b --tokens 256 --memory 4GiB",
    "importance ./nemotron-h-8b --cheap --out units.safetensors --json",
  ],
  async run({ positionals: { SRC }, options }, { library }) {
    const report = await library.importance(SRC!, { ...options, out: options.out ?? DEFAULT_OUT });
    return { report, exit: 0, text: (view) => importanceText(report, view) };
  },
});

function importanceText(report: ImportanceReport, view: View): string[] {
  const { layers, stability, unavailable } = report;
  const measure = (value: number | null) => (value === null ? "-" : formatMeasure(value));
  const rows = layers.map(({ layer, kind, mse, kl, logitsNmse, cosine, rank }) => [
    ...[`${layer}`, kind, measure(mse), measure(kl), measure(logitsNmse), measure(cosine)],
    rank === null ? "-" : rank.toFixed(1),
  ]);
  return [
    ...factTable(view, [
      ["wrote", escapeControls(report.out)],
      [
        "prompts",
        `${formatQuantity(report.prompts, "prompt")}, ${formatQuantity(report.tokens, "token")}; weights read ${formatQuantity(report.passes, "time")}, ${formatBytes(report.bytesRead)}`,
      ],
      ["stability", stability === null ? null : stabilityText(stability.layers)],
      ["run on", `${escapeControls(report.backend)}, ${escapeControls(report.device)}`],
      ["time", formatDuration(report.seconds)],
      ["not scored", unavailable.map(({ scores, why }) => `${scores.join(", ")}: ${why}`)],
    ]),
    "",
    ...tableWithHead(view, ["layer", "kind", "mse", "kl", "logits nmse", "cosine", "rank"], rows, "rlrrrrr"),
  ];
}

/** A lower correlation means that other prompts may rank layers otherwise. */
const stabilityText = (layers: number | null): string =>
  layers === null
    ? "not defined: half of the prompts rank all layers equally"
    : `${layers.toFixed(3)}, rank correlation of the layers' mse between two halves of the prompts`;
