/** `doctor`: what this machine offers, and why something is missing. */
import type { DoctorReport } from "../../index.ts";
import { defineCommand } from "../command.ts";
import type { Library } from "../library.ts";
import { OUTPUT } from "../options.ts";
import { bytes, counted, facts, grouped, headed, measured, type View, visible } from "../render.ts";

/** The library has no name for them. */
type DoctorOptions = NonNullable<Parameters<Library["doctor"]>[0]>;

export const doctor = defineCommand<DoctorOptions>({
  name: "doctor",
  summary: "show Node, memory, disk and backends; --kernels tests every kernel",
  places: [],
  flags: ["kernels", "backend", "device", "threads", ...OUTPUT],
  examples: ["doctor", "doctor --kernels --json"],
  async run({ options }, { library }) {
    const report = await library.doctor(options);
    const failed = report.kernels?.some(({ ok }) => !ok) ?? false;
    return { report, exit: failed ? 1 : 0, text: (view) => doctorText(report, view) };
  },
});

function doctorText(report: DoctorReport, view: View): string[] {
  const { paint } = view;
  const leftovers = report.staging.map(visible);
  return [
    ...facts(view, [
      ["node", report.node],
      ["platform", report.platform],
      ["cores", counted(report.cores, "core")],
      ["memory", bytes(report.memoryBytes)],
      ["disk free", bytes(report.diskFreeBytes)],
      ["staged", leftovers.length === 0 ? "nothing left over" : leftovers],
    ]),
    "",
    ...headed(
      view,
      ["backend", "", "device"],
      report.backends.map(({ id, available, device, driver, software, extensions, reason }) => [
        id,
        available ? paint("green", "ready") : paint("yellow", "missing"),
        [
          available ? [] : (reason ?? "no reason known"),
          device ?? [],
          driver ?? [],
          software ? "software" : [],
          extensions,
        ]
          .flat()
          .map(visible)
          .join(", "),
      ]),
    ),
    ...kernelTables(report.kernels ?? [], view),
  ];
}

/** A table for each device: its name is too long for a column. */
function kernelTables(kernels: NonNullable<DoctorReport["kernels"]>, view: View): string[] {
  const nameOf = ({ backend, device }: (typeof kernels)[number]) => `${backend}, ${device}`;
  const named = [...new Set(kernels.map(nameOf))].map(
    (name) => [name, kernels.filter((row) => nameOf(row) === name)] as const,
  );
  return named.flatMap(([name, rows]) => [
    "",
    visible(name),
    ...headed(
      view,
      ["kernel", "cases", "worst error", "bound", "speed", ""],
      rows.map(({ id, cases, worstError, bound, ok, speed }) => [
        id,
        grouped(cases),
        measured(worstError),
        measured(bound),
        `${measured(speed.value)} ${speed.unit}`,
        ok ? view.paint("green", "ok") : view.paint("red", "out of bound"),
      ]),
      "lrrrrl",
    ),
  ]);
}
