/** `doctor`: shows what this machine offers, and why a backend is missing. */
import {
  escapeControls,
  formatBytes,
  formatCount,
  formatMeasure,
  formatQuantity,
} from "../../core/figures.ts";
import type { DoctorReport } from "../../index.ts";
import { defineCommand } from "../command.ts";
import type { Library } from "../library.ts";
import { OUTPUT } from "../options.ts";
import { factTable, tableWithHead, type View } from "../render.ts";

/** The library exports no type for these options. */
type DoctorOptions = NonNullable<Parameters<Library["doctor"]>[0]>;

export const doctor = defineCommand<DoctorOptions>({
  name: "doctor",
  summary: "show Node, memory, disk, backends and leftovers of stopped runs; --kernels tests every kernel",
  positionals: [
    {
      name: "PATH",
      about: "destination, or folder, where stopped runs may have left files; default: the current folder",
      optional: true,
    },
  ],
  flags: ["kernels", "plugin", "backend", "device", "threads", ...OUTPUT],
  examples: ["doctor", "doctor ./model.isologit", "doctor --kernels --json"],
  async run({ options, positionals: { PATH } }, { library }) {
    const report = await library.doctor({ ...options, ...(PATH !== undefined && { path: PATH }) });
    const failed = report.kernels?.some(({ ok }) => !ok) ?? false;
    return { report, exit: failed ? 1 : 0, text: (view) => doctorText(report, view) };
  },
});

function doctorText(report: DoctorReport, view: View): string[] {
  const { paint } = view;
  const leftovers = report.leftovers.map(leftoverText);
  return [
    ...factTable(view, [
      ["node", report.node],
      ["platform", report.platform],
      ["cores", formatQuantity(report.cores, "core")],
      ["memory", formatBytes(report.memoryBytes)],
      ["disk free", formatBytes(report.diskFreeBytes)],
      ["left over", leftovers.length === 0 ? "no unfinished files" : leftovers],
    ]),
    "",
    ...tableWithHead(
      view,
      ["backend", "", "device"],
      report.backends.map(({ id, available, device, driver, software, extensions, reason }) => [
        id,
        available ? paint("green", "ready") : paint("yellow", "missing"),
        [
          available ? [] : (reason ?? "the reason is not known"),
          device ?? [],
          driver ?? [],
          software ? "software" : [],
          extensions,
        ]
          .flat()
          .map(escapeControls)
          .join(", "),
      ]),
    ),
    ...kernelTables(report.kernels ?? [], view),
  ];
}

/** `x.isologit.partial: 1.2 GB with 30 finished tensors, abandoned; --resume continues it` */
function leftoverText(leftover: DoctorReport["leftovers"][number]): string {
  const { path, kind, state, bytes, tensors, tasks } = leftover;
  const what = {
    staged: `${formatBytes(bytes)} with ${formatQuantity(tensors ?? 0, "finished tensor")}`,
    file: `${formatBytes(bytes)} of an incomplete file`,
    lock: "a lock",
  }[kind];
  const advice = {
    staged:
      tasks === null
        ? "the same command with --resume continues, or remove it"
        : `run those of its ${tasks} tasks that have not ended, then \`isologit merge\`, or remove it`,
    file: "remove it",
    lock: "the next run removes it",
  }[kind];
  const next = {
    abandoned: `no process writes there: ${advice}`,
    "in use": "a process is writing there",
    unknown: "a process on another machine may be writing there",
  }[state];
  return escapeControls(`${path}: ${what}; ${next}`);
}

/** One table per device, because a device name is too long for a column. */
function kernelTables(kernels: NonNullable<DoctorReport["kernels"]>, view: View): string[] {
  const nameOf = ({ backend, device }: (typeof kernels)[number]) => `${backend}, ${device}`;
  const named = [...new Set(kernels.map(nameOf))].map(
    (name) => [name, kernels.filter((row) => nameOf(row) === name)] as const,
  );
  return named.flatMap(([name, rows]) => [
    "",
    escapeControls(name),
    ...tableWithHead(
      view,
      ["kernel", "cases", "worst error", "bound", "speed", ""],
      rows.map(({ id, cases, worstError, bound, ok, speed }) => [
        id,
        formatCount(cases),
        formatMeasure(worstError),
        formatMeasure(bound),
        `${formatMeasure(speed.value)} ${speed.unit}`,
        ok ? view.paint("green", "ok") : view.paint("red", "out of bound"),
      ]),
      "lrrrrl",
    ),
  ]);
}
