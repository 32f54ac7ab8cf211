/** `dispatch k8s`: writes the Jobs of a conversion for Kubernetes. Nothing is read or submitted. */
import { mkdir, writeFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { stringify } from "yaml";
import { IsologitError, systemError } from "../../core/errors.ts";
import { type Claim, type JobWords, kubernetesJobs } from "../../dispatch/k8s.ts";

export interface KubernetesOptions {
  /** number of tasks */
  readonly tasks: number;
  /** image of the containers, in which this program is installed */
  readonly image: string;
  /** volume claims that hold source and destination */
  readonly claims?: readonly Claim[];
  /** the words that start this program in the image; default "isologit" */
  readonly program?: readonly string[];
  /** words of each Job, to which the number of threads is added */
  readonly words: JobWords;
  /** how many tasks run at the same time; default: all */
  readonly parallelism?: number;
  /** cores of each container; default 2 */
  readonly cpus?: number;
  /** largest size of all buffers of a process, bytes; default 1 GiB */
  readonly memoryBytes?: number;
  /** memory of each container, bytes; default: 1 GiB more than `memoryBytes` */
  readonly podMemoryBytes?: number;
  /** how often a task is started again after a fault that may pass; default 20 */
  readonly retries?: number;
  /** beginning of the names of the Jobs; default: the name of the destination */
  readonly jobName?: string;
  /** secret with the key HF_TOKEN */
  readonly tokenSecret?: string;
  /** file to write the manifest to */
  readonly out?: string;
}

export interface KubernetesReport {
  readonly engine: "k8s";
  readonly tasks: number;
  /** names of the Jobs: plan, tasks, compare (if tasks compare), merge */
  readonly jobs: readonly string[];
  /** the Jobs in YAML, for `kubectl apply -f` */
  readonly manifest: string;
}

const GIB = 2 ** 30;

/** Longest name of a Job whose Pods can be named after it, less the ending that each Job gets. */
const MAX_NAME = 52;

/**
 * The Jobs of a conversion for Kubernetes (`batch/v1`): a plan, an Indexed Job of tasks that write and one of tasks that compare,
 * each with a limit of retries for each task, and the merge. Pods that are drained do not count; statuses after which another run would end in the same way fail the Job.
 *
 * @param destination path as the containers see it
 * @throws USAGE for names that Kubernetes does not accept
 */
export async function dispatchK8s(
  destination: string,
  options: KubernetesOptions,
): Promise<KubernetesReport> {
  const { tasks, image, claims = [], program = ["isologit"], words, cpus = 2, retries = 20, out } = options;
  const { memoryBytes = GIB, podMemoryBytes = memoryBytes + GIB, parallelism, tokenSecret } = options;
  const name = options.jobName ?? nameOf(destination);
  if (!/^[a-z]([a-z0-9-]*[a-z0-9])?$/.test(name) || name.length > MAX_NAME) {
    const message = `\`jobName\` is ${JSON.stringify(name)}, expected up to ${MAX_NAME} small letters, digits and hyphens, beginning with a letter`;
    throw new IsologitError("USAGE", message);
  }
  const jobs = kubernetesJobs({
    ...{ name, image, claims, tasks, cpus, retries, program, words, memoryBytes: podMemoryBytes },
    ...(parallelism !== undefined && { parallelism }),
    ...(tokenSecret !== undefined && { tokenSecret }),
  });
  const manifest = jobs.map((job) => stringify(job, { aliasDuplicateObjects: false })).join("---\n");
  if (out !== undefined) {
    try {
      await mkdir(dirname(out), { recursive: true });
      await writeFile(out, manifest);
    } catch (error) {
      throw systemError(error, { file: out });
    }
  }
  return { engine: "k8s", tasks, jobs: jobs.map(({ metadata }) => metadata.name), manifest };
}

function nameOf(destination: string): string {
  const base = basename(destination.replace(/\/+$/, "")).toLowerCase();
  const plain = base.replaceAll(/[^a-z0-9]+/g, "-").replaceAll(/^-+|-+$/g, "");
  return `isologit-${plain}`.slice(0, MAX_NAME).replace(/-+$/, "");
}
