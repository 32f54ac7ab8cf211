/** `doctor`: what this machine offers, and why something is missing. */
import type { DoctorReport } from "../../api.ts";
import type { Command } from "../command.ts";
import { TALK } from "../options.ts";
import { bytes, counted, facts, grouped, headed, measured, type View, visible } from "../render.ts";
import { machineOptions } from "../request.ts";

export const doctor: Command = {
  name: "doctor",
  summary: "show Node, memory, disk and backends; --kernels tests every kernel",
  places: [],
  flags: ["kernels", "backend", "threads", ...TALK],
  examples: ["doctor", "doctor --kernels --json"],
  async run(_, flags, session) {
    const kernels = flags.kernels === undefined ? {} : { kernels: flags.kernels };
    const report = await session.library.doctor({ ...machineOptions(flags, session), ...kernels });
    const failed = report.kernels?.some(({ ok }) => !ok) ?? false;
    return { report, exit: failed ? 1 : 0, text: (view) => doctorText(report, view) };
  },
};

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
      report.backends.map(({ id, available, device, driver, software, reason }) => [
        id,
        available ? paint("green", "ready") : paint("yellow", "missing"),
        [
          available ? [] : (reason ?? "no reason known"),
          device ?? [],
          driver ?? [],
          software ? "software" : [],
        ]
          .flat()
          .map(visible)
          .join(", "),
      ]),
    ),
    ...(report.kernels === undefined ? [] : ["", ...kernelTable(report.kernels, view)]),
  ];
}

const kernelTable = (kernels: NonNullable<DoctorReport["kernels"]>, view: View): string[] =>
  headed(
    view,
    ["kernel", "backend", "cases", "worst error", "bound", ""],
    kernels.map(({ id, backend, cases, worstError, bound, ok }) => [
      id,
      backend,
      grouped(cases),
      measured(worstError),
      measured(bound),
      ok ? view.paint("green", "ok") : view.paint("red", "out of bound"),
    ]),
    "llrrrl",
  );
