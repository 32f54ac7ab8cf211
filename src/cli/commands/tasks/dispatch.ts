/** `dispatch`: gives a conversion to the engine of a cluster. */
import { IsologitError } from "../../../core/errors.ts";
import { escapeControls } from "../../../core/figures.ts";
import type { KubernetesOptions, KubernetesReport, SlurmOptions, SlurmReport } from "../../../index.ts";
import { DESTINATION, defineCommand, type Outcome, SOURCE } from "../../command.ts";
import {
  CALIBRATION,
  DISPATCH,
  type FlagName,
  type Flags,
  LIMITS,
  MACHINE,
  PLACEMENT,
  PROMPT,
  RECAST,
  SOURCE_OPTIONS,
  WITH_REPORTS,
} from "../../options.ts";
import { factTable, type View } from "../../render.ts";
import { refuseWithoutTarget, targetOf } from "../../request.ts";
import { flagWords } from "../../tasks/words.ts";
import { choiceReader } from "../../values.ts";
import { convertOutcome } from "../convert.ts";

const ENGINES = ["slurm", "k8s"] as const;

/** Flags that decide what is written, and how it is verified: those of `plan`. */
const OF_PLAN = [
  ...SOURCE_OPTIONS,
  "to",
  ...RECAST,
  ...CALIBRATION,
  ...PLACEMENT,
  ...LIMITS,
  ...PROMPT,
] as const satisfies readonly FlagName[];

/** Flags of each process, apart from threads. */
const OF_PROCESS = ["plugin", "memory", "backend", "device"] as const satisfies readonly FlagName[];
const OF_TASK = [...OF_PROCESS, "overwrite", "directIo"] as const;
const OF_COMPARE = [...OF_TASK, "verify"] as const;
const OF_MERGE = [...OF_COMPARE, "strict", "reference"] as const;
const OF_SLURM = ["sbatch", "workFolder", "dryRun"] as const satisfies readonly FlagName[];
const OF_K8S = [
  "image",
  "claim",
  "parallelism",
  "cpus",
  "podMemory",
  "jobName",
  "tokenSecret",
  "out",
] as const satisfies readonly FlagName[];

export const dispatch = defineCommand<Omit<SlurmOptions, "pollMs"> & KubernetesOptions & DispatchOnly>({
  name: "dispatch",
  summary: "run a conversion on many machines, by Slurm or Kubernetes",
  positionals: [
    { name: "ENGINE", about: "slurm: submit a job array and follow it; k8s: write a manifest" },
    SOURCE,
    DESTINATION,
  ],
  flags: [
    ...OF_PLAN,
    "verify",
    "strict",
    "tasks",
    ...DISPATCH,
    ...MACHINE,
    "overwrite",
    "directIo",
    "dryRun",
    "out",
    ...WITH_REPORTS,
  ],
  helps: {
    dryRun: { about: "write plan and scripts for Slurm, and submit nothing" },
    out: { about: "file for the manifest of Kubernetes", default: "stdout" },
  },
  examples: [
    "dispatch slurm /models/56b ./fp8 --to hf --dtype fp8-e4m3 --tasks 16 --sbatch time=240",
    "dispatch k8s /models/56b /models/56b.isologit --tasks 8 --image i:1 --claim m=/models",
  ],
  async run({ positionals: { ENGINE, SRC, DST }, flags, options }, { library }) {
    const engine = choiceReader(ENGINES)(ENGINE!, "ENGINE");
    const to = targetOf(flags, DST!, await library.formats({ plugins: options.plugins }));
    if (to === undefined && flags.dtype === undefined) refuseWithoutTarget(DST!);
    const { tasks } = options;
    if (tasks === undefined) throw new IsologitError("USAGE", "--tasks is missing");
    const asked = { ...flags, ...(to !== undefined && { to }) };
    if (engine === "k8s") {
      refuseFlags(flags, OF_SLURM, "slurm");
      return await toKubernetes(asked, SRC!, DST!, { ...options, tasks }, library);
    }
    refuseFlags(flags, OF_K8S, "k8s");
    const report = await library.dispatchSlurm(SRC!, DST!, {
      ...options,
      ...{ tasks, program: options.program ?? [process.execPath, process.argv[1]!] }, // this program's own file
      ...(to !== undefined && { to }),
      compare: flags.verify !== "off",
      taskWords: flagWords(asked, OF_TASK, true),
      compareWords: flagWords(asked, OF_COMPARE, true),
      mergeWords: flagWords(asked, OF_MERGE, true),
    });
    return slurmOutcome(report);
  },
});

/** Options of `verify` that the words of the merge carry. */
interface DispatchOnly {
  readonly verify?: unknown;
  readonly strict?: unknown;
  readonly overwrite?: unknown;
  readonly directIo?: unknown;
  readonly reference?: unknown;
}

/** @throws USAGE for a flag of the other engine */
function refuseFlags(flags: Flags, names: readonly FlagName[], engine: string): void {
  const given = names.find((name) => flags[name] !== undefined);
  if (given === undefined) return;
  const [word] = flagWords({ [given]: true }, [given], false);
  throw new IsologitError("USAGE", `${word} is a flag of dispatch ${engine}`);
}

function slurmOutcome(report: SlurmReport): Outcome {
  const { folder, jobs, result, scripts } = report;
  const rows = (view: View) =>
    factTable(view, [
      ["folder", escapeControls(folder)],
      ["jobs", jobs === null ? "nothing was submitted" : jobsText(jobs)],
      ["submit", jobs === null ? scripts.map((script) => `sbatch ${script}`).join(", then ") : null],
    ]);
  if (result === null) return { report, exit: 0, text: rows };
  const { text, report: _, ...outcome } = convertOutcome("convert", result);
  return { ...outcome, report, text: (view) => [...text(view), ...(view.quiet ? [] : rows(view))] };
}

function jobsText({ tasks, compare, merge }: NonNullable<SlurmReport["jobs"]>): string {
  return [`tasks ${tasks}`, ...(compare === null ? [] : [`compare ${compare}`]), `merge ${merge}`].join(", ");
}

async function toKubernetes(
  flags: Flags,
  source: string,
  destination: string,
  options: Omit<KubernetesOptions, "words" | "image"> &
    Partial<KubernetesOptions> & { readonly tasks: number },
  library: { dispatchK8s(destination: string, options: KubernetesOptions): Promise<KubernetesReport> },
): Promise<Outcome> {
  const { image, tasks } = options;
  if (image === undefined) throw new IsologitError("USAGE", "--image is missing");
  const plan = `${destination.replace(/\/+$/, "")}.plan.json`;
  const share = ["--task", `auto/${tasks}`];
  const compares = flags.verify !== "off";
  const report = await library.dispatchK8s(destination, {
    ...options,
    image,
    words: {
      plan: [
        "plan",
        source,
        destination,
        "--out",
        plan,
        ...flagWords(flags, [...OF_PLAN, "memory", "backend", "device"], false),
      ],
      task: ["convert", "--plan", plan, ...share, ...flagWords(flags, OF_TASK, false)],
      ...(compares && { compare: ["merge", plan, ...share, ...flagWords(flags, OF_COMPARE, false)] }),
      merge: [
        "merge",
        plan,
        ...(compares ? ["--tasks", String(tasks)] : []),
        ...flagWords(flags, OF_MERGE, false),
      ],
    },
  });
  const { out } = options;
  const text = (view: View) =>
    out === undefined
      ? report.manifest.trimEnd().split("\n")
      : factTable(view, [
          ["manifest", escapeControls(out)],
          ["jobs", report.jobs.join(", ")],
          ["apply", `kubectl apply -f ${escapeControls(out)}`],
        ]);
  return { report, exit: 0, text };
}
