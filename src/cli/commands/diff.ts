/** `diff`: compares two checkpoints role by role, in any formats. */
import { escapeControls } from "../../core/figures.ts";
import type { DiffedSidecar, DiffedTensor, DiffOptions, DiffReport } from "../../index.ts";
import { defineCommand } from "../command.ts";
import { SOURCE_OPTIONS, WITH_REPORTS } from "../options.ts";
import { firstItems, tableWithHead, type View } from "../render.ts";

export const diff = defineCommand<DiffOptions>({
  name: "diff",
  summary: "list the tensors, settings and side files that differ, across formats and dialects",
  positionals: [
    { name: "A", about: "first checkpoint" },
    { name: "B", about: "second checkpoint" },
  ],
  flags: [...SOURCE_OPTIONS, "weights", "keepGoing", "threads", "memory", ...WITH_REPORTS],
  examples: ["diff ./hf model.isologit", "diff ./nemo2 ./hf --weights", "diff ./hf ./hf-fp8 --json"],
  async run({ positionals: { A, B }, options }, { library }) {
    const report = await library.diff(A!, B!, options);
    const subject = { command: "diff", a: A!, b: B!, report } as const;
    return { report, subject, exit: report.equal ? 0 : 1, text: (view) => diffText(report, view) };
  },
});

function diffText(report: DiffReport, view: View): string[] {
  const most = view.verbose ? Number.POSITIVE_INFINITY : 40;
  const unlike = report.tensors.filter(({ equal }) => !equal);
  const rows = unlike.map((tensor) => row(tensor));
  const tensors =
    unlike.length === 0 ? [] : [...firstItems(tableWithHead(view, HEAD, rows, "lrrrrl"), most), ""];
  const config = report.config.map(
    ({ key, a, b }) =>
      `config  ${escapeControls(key)}: ${escapeControls(JSON.stringify(a))} / ${escapeControls(JSON.stringify(b))}`,
  );
  const sidecars = report.sidecars.flatMap((one) => sidecarLines(one, view));
  const verdict = report.equal ? "equal" : "different";
  const count = `${report.tensors.length - unlike.length} of ${report.tensors.length} roles are equal`;
  return [...tensors, ...firstItems(config, most), ...sidecars, `${verdict}: ${count}`];
}

const HEAD = ["role", "layer", "max abs", "rel L2", "ulp", "A / B"] as const;

function row({ role, layer, a, b, maxAbs, relL2, ulp, error }: DiffedTensor): string[] {
  const sides = error ?? (a === b ? a! : `${a ?? "nothing"} / ${b ?? "nothing"}`);
  const number = (value: number | null) => (value === null ? "" : value.toPrecision(3));
  return [
    role,
    layer === null ? "" : String(layer),
    number(maxAbs),
    number(relL2),
    ulp === null ? "" : String(ulp),
    escapeControls(sides),
  ];
}

function sidecarLines({ path, a, b, lines }: DiffedSidecar, { paint }: View): string[] {
  const how = a === null ? "only in B" : b === null ? "only in A" : "differs";
  const shown =
    lines === undefined
      ? []
      : [
          ...lines.a.map((line) => paint("red", `  ${lines.from}  - ${escapeControls(line)}`)),
          ...lines.b.map((line) => paint("green", `  ${lines.from}  + ${escapeControls(line)}`)),
        ];
  return [`file    ${escapeControls(path)} ${how}`, ...shown];
}
