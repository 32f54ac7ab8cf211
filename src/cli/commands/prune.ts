/** `prune`: writes a part of a model; the cut is proved before it is put in place. */

import { IsologitError } from "../../core/errors.ts";
import {
  escapeControls,
  formatBytes,
  formatCount,
  formatMeasure,
  formatPercent,
  formatQuantity,
} from "../../core/figures.ts";
import type { PruneOptions, PruneReport } from "../../index.ts";
import { isProven } from "../../verify/verdict.ts";
import { DESTINATION, defineCommand, type Outcome, SOURCE } from "../command.ts";
import { nameFlagsInVerification } from "../findings.ts";
import {
  DESTINATION_OPTIONS,
  MACHINE,
  PROMPTS,
  PRUNING,
  SIZES,
  SOURCE_OPTIONS,
  WITH_REPORTS,
} from "../options.ts";
import { factTable, formatDuration, type View, wrapParts } from "../render.ts";
import { refuseWithoutTarget, targetOf } from "../request.ts";
import { memoryRows, searchRows, searchTable, sizesText } from "../searches.ts";
import { integerReader } from "../values.ts";
import { paintVerdict, verificationText } from "../verdict.ts";

/** Columns that the labels take. */
const LABEL_COLUMNS = 15;

export const prune = defineCommand<PruneOptions>({
  name: "prune",
  summary: "cut layers, channels and heads out of a model and prove that the rest is unchanged",
  positionals: [SOURCE, { ...DESTINATION, optional: true }],
  flags: [
    ...SOURCE_OPTIONS,
    ...PRUNING,
    "hidden",
    ...SIZES,
    "dryRun",
    ...(["to", "tp", "pp", "maxShardSize"] as const),
    ...PROMPTS,
    ...MACHINE,
    ...DESTINATION_OPTIONS,
    ...WITH_REPORTS,
  ],
  severalPrompts: true,
  helps: {
    hidden: {
      spec: "--hidden <n>",
      about: "width of the hidden state: the widest cut, every matrix changes",
      read: integerReader(1, 2 ** 31),
    },
    dryRun: { about: "do everything but write; needs no DST" },
  },
  examples: [
    "prune ./nemotron-h-8b ./smaller --to hf --drop 7,29",
    "prune ./56b ./47b --to hf --layers mlp=48 --ffn 30720 --importance scores.safetensors",
    "prune ./56b ./47b --to hf --params 47e9 --importance scores.safetensors",
    "prune hf://nvidia/Nemotron-H-56B-Base-8K --sizes --budget memory=24GiB,weights=fp4,kv=fp8",
    "prune ./nemotron-h-8b --ffn 16384 --importance scores.safetensors --dry-run",
  ],
  async run({ positionals: { SRC, DST }, flags, options }, { library }) {
    if (flags.sizes === true) {
      if (DST !== undefined) throw new IsologitError("USAGE", "--sizes writes nothing, and DST was given");
      const report = await library.sizes(SRC!, { ...options, ...(flags.json !== true && { table: true }) });
      return { report, exit: 0, text: (view) => sizesText(report, view) };
    }
    const formats = await library.formats({ plugins: options.plugins });
    const to = DST === undefined && flags.to === undefined ? undefined : targetOf(flags, DST ?? "", formats);
    if (to === undefined && DST !== undefined) refuseWithoutTarget(DST);
    const report = await library.prune(SRC!, DST, { ...options, ...(to !== undefined && { to }) });
    return pruneOutcome(report);
  },
});

function pruneOutcome(pruned: PruneReport): Outcome {
  const verification = pruned.verification === null ? null : nameFlagsInVerification(pruned.verification);
  const report: PruneReport = { ...pruned, verification };
  const text = (view: View) => pruneText(report, view);
  const { source, destination, staged } = report;
  if (verification === null || destination === null) return { report, text, exit: 0 };
  const subject = {
    command: "verify",
    a: source.address,
    b: staged ?? destination.path,
    report: verification,
    ...(report.search !== null && { search: report.search }),
  } as const;
  if (isProven(verification.verdict)) return { report, subject, text, exit: 0 };
  const state =
    staged === undefined
      ? `${destination.path} existed already, and is not this cut`
      : `${destination.path} was not written; the new files are staged in ${staged}`;
  const message = `the verdict is ${verification.verdict}: ${state}`;
  const next = `read the verdict above, ${staged === undefined ? "choose another destination" : "remove the staged files"}, or start again with --overwrite`;
  return { report, subject, text, exit: 1, complaint: { message, next } };
}

function pruneText(report: PruneReport, view: View): readonly string[] {
  const { architecture, dropped, depth, gainFactor, verification, damage } = report;
  if (view.quiet) return verification === null ? [] : [paintVerdict(view.paint, verification.verdict)];
  const { counts, ffn, mambaHeads, heads, hidden, parameters, pattern } = architecture;
  const wide = view.width - LABEL_COLUMNS;
  const wrap = (parts: readonly string[], by?: string) => wrapParts(parts, wide, by);
  const kinds = Object.entries(counts).flatMap(([kind, count]) => (count > 0 ? [`${count} ${kind}`] : []));
  const gone = dropped.map(({ layer, kind, score }) =>
    score === null ? `${layer} (${kind})` : `${layer} (${kind}, ${formatMeasure(score)})`,
  );
  const rungs = verification?.rungs.map(
    ({ rung, verdict }) => `${rung} ${paintVerdict(view.paint, verdict)}`,
  );
  const short = [
    ...wrapParts(headline(report, view).split(" "), view.width, " "),
    ...factTable(view, [
      ["layers", wrap([...kinds, escapeControls(pattern)])],
      ["widths", wrap([`hidden ${hidden}`, `ffn ${ffn}`, `mamba heads ${mambaHeads}`, `heads ${heads}`])],
      ["parameters", formatCount(parameters)],
      [
        "gains",
        gainFactor === null ? null : `of gated norms × ${gainFactor.toFixed(4)}, rounded to their type`,
      ],
      ...memoryRows(report),
      ...searchRows(report),
      ["dropped", gone.length === 0 ? null : wrap(gone)],
      ["in rounds", depth === null ? null : wrap(depthTexts(depth))],
      ["damage", damage === null ? null : wrap(damageTexts(damage))],
      [
        "",
        damage === null ? null : wrap("It does not decide the verdict; distil before use.".split(" "), " "),
      ],
      ["checks", rungs === undefined ? null : wrap(rungs)],
      ["time", formatDuration(report.seconds)],
    ]),
  ];
  const search = report.search === null ? [] : ["", ...searchTable(report.search, view)];
  if (verification === null || (isProven(verification.verdict) && !view.verbose))
    return [...short, ...search];
  return [...short, ...search, "", ...verificationText(verification, view)];
}

function headline({ source, destination, staged, verification }: PruneReport, view: View): string {
  const from = escapeControls(source.address);
  if (destination === null || verification === null) return `a plan to prune ${from}: nothing was written`;
  const to = escapeControls(destination.path);
  const word = paintVerdict(view.paint, verification.verdict);
  const size = formatBytes(destination.bytes);
  if (isProven(verification.verdict)) return `${word}: wrote ${to}, ${size}, the intended part of ${from}`;
  const state = staged === undefined ? "existed already" : "was not written";
  return `${word}: ${to} ${state}: it is not proved to be the intended part of ${from}`;
}

/** `by mse: 13, 16, 3`, in the order in which the layers went */
const depthTexts = ({ layerScore, rounds }: NonNullable<PruneReport["depth"]>): readonly string[] =>
  rounds.map(({ layer }, i) => (i === 0 ? `by ${layerScore}: ${layer}` : `${layer}`));

const damageTexts = (damage: NonNullable<PruneReport["damage"]>): readonly string[] => [
  `KL mean ${formatMeasure(damage.klMean)} nats`,
  `top-1 ${formatPercent(damage.top1)}`,
  `loss ${formatMeasure(damage.nllParent)} to ${formatMeasure(damage.nllPruned)} nats`,
  `accuracy ${formatPercent(damage.accuracyParent)} to ${formatPercent(damage.accuracyPruned)}`,
  formatQuantity(damage.tokens, "token"),
];
