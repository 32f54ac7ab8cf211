/** Flags about the division of a conversion between processes. */
import { flagGroup } from "../flag.ts";
import { integerReader, type Reader, readSize, readText, refuseValue } from "../values.ts";

/** A task as it is given: a number, or the number that the engine of a cluster sets. */
export interface GivenTask {
  readonly index: number | "auto";
  /** absent: the engine says how many tasks there are */
  readonly count?: number;
}

const readTask: Reader<GivenTask> = (given, name) => {
  const [, index, of, count] = /^(auto|\d{1,6})(\/(\d{1,6}))?$/.exec(given) ?? [];
  if (index === undefined || (index !== "auto" && of === undefined))
    return refuseValue(name, given, "I/N, such as 0/8, or auto");
  return {
    index: index === "auto" ? index : Number(index),
    ...(count !== undefined && { count: Number(count) }),
  };
};

/** A volume claim: `models=/models`. */
const readClaim: Reader<{ readonly name: string; readonly path: string }> = (given, name) => {
  const [, claim, path] =
    /^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)=(\/.*)$/.exec(given)?.filter((_, i) => i !== 2) ?? [];
  if (claim === undefined || path === undefined) return refuseValue(name, given, "CLAIM=/PATH");
  return { name: claim, path };
};

/** The words of a command, as a shell reads them without quotes. */
const readWords: Reader<readonly string[]> = (given, name) => readText(given, name).trim().split(/\s+/);

export const TASK_FLAGS = flagGroup("Tasks:", {
  task: {
    spec: "--task <i/n>",
    option: null,
    about:
      "with --plan, write only the share I of N, counted from 0; auto, or auto/N, takes I from the array of Slurm or the Indexed Job of Kubernetes in which the process runs; `merge` completes the work",
    read: readTask,
  },
  tasks: {
    spec: "--tasks <n>",
    about: "number of tasks that the conversion is divided into",
    read: integerReader(1, 10_000),
  },
});

const DISPATCH = "Dispatch options:";

export const DISPATCH_FLAGS = flagGroup(DISPATCH, {
  program: {
    spec: "--program <words>",
    about: "words that start isologit on a node or in the image",
    default: "this program for Slurm, isologit for Kubernetes",
    read: readWords,
  },
  retries: {
    spec: "--retries <n>",
    about: "how often the engine starts a task again after a fault that may pass",
    default: "3 for Slurm, 20 for Kubernetes",
    read: integerReader(0, 1000),
  },
  sbatch: {
    spec: "--sbatch <option>",
    about:
      "option of sbatch for all jobs, such as partition=long or cpus-per-task=8; may be given several times",
    read: readText,
    repeatable: true,
  },
  workFolder: {
    spec: "--work-folder <folder>",
    about: "folder on the shared disk for plan, scripts, logs and results of Slurm",
    default: "DST.dispatch",
    read: readText,
  },
  image: {
    spec: "--image <image>",
    about: "image of the containers of Kubernetes, in which isologit is installed",
    read: readText,
  },
  claim: {
    spec: "--claim <name=path>",
    option: "claims",
    about: "volume claim, and where the containers see it; may be given several times",
    read: readClaim,
    repeatable: true,
  },
  parallelism: {
    spec: "--parallelism <n>",
    about: "number of tasks that Kubernetes runs at the same time",
    default: "all",
    read: integerReader(1, 10_000),
  },
  cpus: {
    spec: "--cpus <n>",
    about: "cores of each container",
    default: "2",
    read: integerReader(1, 1024),
  },
  podMemory: {
    spec: "--pod-memory <size>",
    option: "podMemoryBytes",
    about: "memory of each container",
    default: "--memory and 1GiB more",
    read: readSize,
  },
  jobName: {
    spec: "--job-name <name>",
    about: "beginning of the names of the Jobs",
    default: "the name of DST",
    read: readText,
  },
  tokenSecret: {
    spec: "--token-secret <name>",
    about: "secret of Kubernetes with the key HF_TOKEN, for a source on the Hub",
    read: readText,
  },
});
