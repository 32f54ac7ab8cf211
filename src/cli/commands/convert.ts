/** `convert`: writes another format; the result is verified before it is put in place. */
import { IsologitError } from "../../core/errors.ts";
import { escapeControls, formatBytes } from "../../core/figures.ts";
import type { ConvertOptions, ConvertReport } from "../../index.ts";
import { valuesText } from "../../report/recast-errors.ts";
import { isProven } from "../../verify/verdict.ts";
import { DESTINATION, defineCommand, type Outcome, SOURCE } from "../command.ts";
import { nameFlagsInVerification } from "../findings.ts";
import { leftOutRows } from "../left-out.ts";
import {
  CALIBRATION,
  DESTINATION_OPTIONS,
  LIMITS,
  MACHINE,
  PLACEMENT,
  PROMPT,
  RECAST,
  SIGNING,
  SOURCE_OPTIONS,
  WITH_REPORTS,
} from "../options.ts";
import { factTable, formatDuration, formatRate, type View } from "../render.ts";
import { refuseWithoutTarget, targetOf } from "../request.ts";
import { searchRow } from "../searches.ts";
import { convertHeadline, convertSummary, phaseTexts, resumedText } from "../summary.ts";
import { refuseForTask, taskOf, taskOutcome } from "../tasks/share.ts";
import { rootLines, verificationText } from "../verdict.ts";

/** Flags of the commands that write a checkpoint. */
export const CONVERT_FLAGS = [
  ...SOURCE_OPTIONS,
  ...RECAST,
  ...CALIBRATION,
  ...PLACEMENT,
  "plan",
  "verify",
  "strict",
  ...SIGNING,
  ...LIMITS,
  ...PROMPT,
  ...MACHINE,
  ...DESTINATION_OPTIONS,
  ...WITH_REPORTS,
] as const;

/** With a plan both may be left out. */
const OF_PLAN = {
  source: { ...SOURCE, optional: true },
  destination: { ...DESTINATION, optional: true },
} as const;

export const convert = defineCommand<ConvertOptions>({
  name: "convert",
  summary: "write a checkpoint in another format and prove that it is the same model",
  positionals: [OF_PLAN.source, OF_PLAN.destination],
  flags: ["to", ...CONVERT_FLAGS, "task"],
  examples: [
    "convert ./nemotron-h-8b model.isologit",
    "convert --plan plan.json --task 0/8",
    "convert model.isologit ./restored --to hf --max-shard-size 5GB",
    "convert ./nemotron-h-8b ./fp8 --to hf --dtype fp8-e4m3 --kl 0.02",
    "convert ./nemotron-h-8b model.isologit --resume",
  ],
  async run({ positionals: { SRC, DST }, flags, options }, { library, env }) {
    const { planFile, ...given } = options;
    if (flags.task !== undefined) {
      refuseForTask(
        flags,
        [SRC, DST].filter((place) => place !== undefined),
      );
      const { resume: _, ...ofTask } = given; // a task always continues
      return taskOutcome(await library.convertTask(planFile!, taskOf(flags.task, env), ofTask));
    }
    if (SRC === undefined && planFile !== undefined)
      return convertOutcome("convert", await library.convertPlan(planFile, given));
    if (DST === undefined) {
      const missing = SRC === undefined ? "SRC" : "DST";
      throw new IsologitError(
        "USAGE",
        `missing required argument '${missing}'`,
        {},
        { next: "run `isologit convert --help`" },
      );
    }
    const to = targetOf(flags, DST, await library.formats({ plugins: options.plugins }));
    if (to === undefined && planFile === undefined) refuseWithoutTarget(DST);
    const report = await library.convert(SRC!, DST, { ...options, ...(to !== undefined && { to }) });
    return convertOutcome("convert", report);
  },
});

export function convertOutcome(command: "convert" | "recast", converted: ConvertReport): Outcome {
  const verification =
    converted.verification === null ? null : nameFlagsInVerification(converted.verification);
  const report = { ...converted, verification };
  const { staged } = report;
  const failed = verification !== null && !isProven(verification.verdict);
  const text = (view: View) => convertText(report, view);
  const outcome = { report, subject: { command, report }, text, exit: failed ? 1 : 0 } as const;
  if (!failed) return outcome;
  const { path } = report.destination;
  const state =
    staged === undefined
      ? `${path} existed already, and is not this conversion`
      : `${path} was not written; the new files are staged in ${staged}`;
  const message = `the verdict is ${verification.verdict}: ${state}`;
  const next = `read the verdict above, ${staged === undefined ? "choose another destination" : "remove the staged files"}, or start again with --overwrite`;
  return { ...outcome, complaint: { message, next } };
}

function convertText(report: ConvertReport, view: View): readonly string[] {
  const { source, destination, staged, verification } = report;
  const took = report.seconds;
  const headline = convertHeadline(report, view);
  if (view.quiet) return headline;
  if (!view.verbose) return [...headline, ...convertSummary(report, view)];
  return [
    ...headline,
    "",
    ...factTable(view, [
      [staged === undefined ? "wrote" : "staged", escapeControls(staged ?? destination.path)],
      ["format", `${source.format} to ${destination.format}, ${formatBytes(destination.bytes)}`],
      ["source", escapeControls(source.address)],
      ["values", valuesText(report)],
      searchRow(report),
      ["root", rootLines(source.root, destination.root, ["source", "written"])],
      ...leftOutRows(report),
      ["read", formatBytes(report.bytesRead)],
      ["written", `${formatBytes(report.bytesWritten)}${resumedText(report)}`],
      [
        "time",
        [`${formatDuration(took)}, ${formatRate(report.bytesWritten, took)} written`, ...phaseTexts(view)],
      ],
      ["peak memory", `${formatBytes(report.peakRssBytes)} resident`],
      ["plan", escapeControls(report.plan)],
    ]),
    "",
    ...(verification === null
      ? factTable(view, [["verdict", view.paint("yellow", "not verified, because of --verify off")]])
      : verificationText(verification, view)),
  ];
}
