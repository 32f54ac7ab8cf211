/** `convert`: another format, proven before it appears. */
import type { ConvertOptions, ConvertReport } from "../../index.ts";
import { passed } from "../../report/measures.ts";
import { DESTINATION, defineCommand, type Outcome, SOURCE } from "../command.ts";
import { leftOut } from "../left-out.ts";
import {
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
import { bytes, facts, rate, seconds, type View, visible } from "../render.ts";
import { refuseWithoutTarget, targetOf } from "../request.ts";
import { rootLines, verificationText } from "../verdict.ts";

/** Flags of the commands that write a checkpoint. */
export const CONVERTING = [
  ...SOURCE_OPTIONS,
  ...RECAST,
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

export const convert = defineCommand<ConvertOptions>({
  name: "convert",
  summary: "write a checkpoint in another format and prove that it is the same model",
  places: [SOURCE, DESTINATION],
  flags: ["to", ...CONVERTING],
  examples: [
    "convert ./nemotron-h-8b model.isologit",
    "convert model.isologit ./restored --to hf --max-shard-size 5GB",
    "convert ./nemotron-h-8b ./fp8 --to hf --dtype fp8-e4m3 --kl 0.02",
    "convert ./nemotron-h-8b model.isologit --resume",
  ],
  async run({ places: { SRC, DST }, flags, options }, { library }) {
    const to = targetOf(flags, DST!, await library.formats());
    if (to === undefined && options.planFile === undefined) refuseWithoutTarget(DST!);
    const report = await library.convert(SRC!, DST!, { ...options, ...(to !== undefined && { to }) });
    return converted("convert", report);
  },
});

export function converted(command: "convert" | "recast", report: ConvertReport): Outcome {
  const { verification, staged } = report;
  const failed = verification !== null && !passed(verification.verdict);
  const text = (view: View) => convertText(report, view);
  const told = { report, subject: { command, report }, text, exit: failed ? 1 : 0 } as const;
  if (!failed) return told;
  const { path } = report.destination;
  const made =
    staged === undefined
      ? `${path} was there already, and is not this conversion`
      : `${path} was not written, what was made is staged in ${staged}`;
  const message = `the verdict is ${verification.verdict}: ${made}`;
  const next = `read the verdict above, ${staged === undefined ? "choose another destination" : "remove the staged files"}, or start again with --overwrite`;
  return { ...told, complaint: { message, next } };
}

function convertText(report: ConvertReport, view: View): string[] {
  const { source, destination, staged, verification } = report;
  const took = report.seconds;
  return [
    ...facts(view, [
      [staged === undefined ? "wrote" : "staged", visible(staged ?? destination.path)],
      ["format", `${source.format} to ${destination.format}, ${bytes(destination.bytes)}`],
      ["source", visible(source.address)],
      ["values", report.exact ? "exact: every bit is kept" : "recast: rounded once, to the dtypes asked for"],
      ["root", rootLines(source.root, destination.root, ["source", "written"])],
      ...leftOut(report),
      ["read", bytes(report.bytesRead)],
      ["written", bytes(report.bytesWritten)],
      ["time", `${seconds(took)}, ${rate(report.bytesWritten, took)} written`],
      ["peak memory", `${bytes(report.peakRssBytes)} resident`],
      ["plan", visible(report.plan)],
    ]),
    "",
    ...(verification === null
      ? facts(view, [["verdict", view.paint("yellow", "not verified, as --verify off asks")]])
      : verificationText(verification, view)),
  ];
}
