/**
 * The Jobs of a conversion under Kubernetes: a plan, an Indexed Job of tasks that write, another of tasks that compare, and the
 * merge. All are applied together.
 * A Job whose turn has not come ends with the status of a fault that may pass (its plan file, or a journal, is missing), and
 * Kubernetes starts it again after 10 s, 20 s and so on, at most 6 minutes: no process waits for another Job, and none schedules.
 */
import { FATAL_STATUSES } from "./statuses.ts";

/** A volume claim and the path at which each container sees it. */
export interface Claim {
  readonly name: string;
  readonly path: string;
}

interface KubernetesJobs {
  /** begins the names of the Jobs */
  readonly name: string;
  readonly image: string;
  readonly claims: readonly Claim[];
  readonly tasks: number;
  /** how many tasks run at the same time; absent: all */
  readonly parallelism?: number;
  /** cores of each container; the number of threads */
  readonly cpus: number;
  /** memory of each container, bytes */
  readonly memoryBytes: number;
  /** how often a task is started again after a fault that may pass */
  readonly retries: number;
  /** the words that start this program in the image */
  readonly program: readonly string[];
  readonly words: JobWords;
  /** secret with the key HF_TOKEN, for sources on the Hub */
  readonly tokenSecret?: string;
}

/** The words that each Job gives the program, without threads. */
export interface JobWords {
  readonly plan: readonly string[];
  /** of a task that writes */
  readonly task: readonly string[];
  /** of a task that compares; absent: no task compares */
  readonly compare?: readonly string[];
  readonly merge: readonly string[];
}

/** A Job waits in this way for the slowest task of the Job before it: some four days. */
const WAITING_RETRIES = 1000;

/** Seconds to stop at a safe point after SIGTERM. */
const GRACE_SECONDS = 60;

interface Manifest extends Readonly<Record<string, unknown>> {
  readonly metadata: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
}

/** The Jobs, in order, as objects of the API `batch/v1`. */
export function kubernetesJobs(jobs: KubernetesJobs): readonly Manifest[] {
  const { tasks, parallelism = tasks, retries, words } = jobs;
  const indexed = (backoffLimitPerIndex: number) => ({
    completionMode: "Indexed",
    completions: tasks,
    parallelism: Math.min(parallelism, tasks),
    backoffLimitPerIndex,
    maxFailedIndexes: 0,
  });
  return [
    jobOf(jobs, "plan", words.plan, { backoffLimit: retries }),
    jobOf(jobs, "tasks", words.task, indexed(retries)),
    ...(words.compare === undefined ? [] : [jobOf(jobs, "compare", words.compare, indexed(WAITING_RETRIES))]),
    jobOf(jobs, "merge", words.merge, { backoffLimit: WAITING_RETRIES }),
  ];
}

function jobOf(jobs: KubernetesJobs, part: string, words: readonly string[], spec: object): Manifest {
  const labels = { "app.kubernetes.io/name": "isologit", "app.kubernetes.io/instance": jobs.name };
  return {
    apiVersion: "batch/v1",
    kind: "Job",
    metadata: { name: `${jobs.name}-${part}`, labels },
    spec: {
      ...spec,
      podFailurePolicy: {
        rules: [
          // drained or preempted, and no fault of the process
          { action: "Ignore", onPodConditions: [{ type: "DisruptionTarget", status: "True" }] },
          {
            action: "FailJob",
            onExitCodes: { containerName: "isologit", operator: "In", values: FATAL_STATUSES },
          },
        ],
      },
      template: {
        metadata: { labels },
        spec: {
          restartPolicy: "Never",
          terminationGracePeriodSeconds: GRACE_SECONDS,
          containers: [containerOf(jobs, words)],
          volumes: jobs.claims.map(({ name }) => ({ name, persistentVolumeClaim: { claimName: name } })),
        },
      },
    },
  };
}

function containerOf(
  { image, claims, cpus, memoryBytes, program, tokenSecret }: KubernetesJobs,
  words: readonly string[],
) {
  return {
    name: "isologit",
    image,
    command: program,
    args: [...words, "--threads", String(cpus)],
    ...(tokenSecret !== undefined && {
      env: [{ name: "HF_TOKEN", valueFrom: { secretKeyRef: { name: tokenSecret, key: "HF_TOKEN" } } }],
    }),
    resources: {
      requests: { cpu: String(cpus), memory: String(memoryBytes) },
      limits: { memory: String(memoryBytes) },
    },
    volumeMounts: claims.map(({ name, path }) => ({ name, mountPath: path })),
  };
}
