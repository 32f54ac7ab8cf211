/**
 * The Jobs of a conversion under Kubernetes: a plan, an Indexed Job of tasks, and the merge. All three are applied together.
 * A Job whose turn has not come ends with the status of a fault that may pass (its plan file, or a journal, is missing), and
 * Kubernetes starts it again after 10 s, 20 s and so on, at most 6 minutes: no process waits, and none schedules.
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
  /** words of `plan`, `convert` and `merge`, without threads */
  readonly words: {
    readonly plan: readonly string[];
    readonly task: readonly string[];
    readonly merge: readonly string[];
  };
  /** secret with the key HF_TOKEN, for sources on the Hub */
  readonly tokenSecret?: string;
}

/** The merge waits in this way for the slowest task: some four days. */
const MERGE_RETRIES = 1000;

/** Seconds to stop at a safe point after SIGTERM. */
const GRACE_SECONDS = 60;

interface Manifest extends Readonly<Record<string, unknown>> {
  readonly metadata: { readonly name: string; readonly labels: Readonly<Record<string, string>> };
}

/** The Jobs, in order, as objects of the API `batch/v1`. */
export function kubernetesJobs(jobs: KubernetesJobs): readonly Manifest[] {
  const { tasks, parallelism = tasks, retries, words } = jobs;
  return [
    jobOf(jobs, "plan", words.plan, { backoffLimit: retries }),
    jobOf(jobs, "tasks", words.task, {
      completionMode: "Indexed",
      completions: tasks,
      parallelism: Math.min(parallelism, tasks),
      backoffLimitPerIndex: retries,
      maxFailedIndexes: 0,
    }),
    jobOf(jobs, "merge", words.merge, { backoffLimit: MERGE_RETRIES }),
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
