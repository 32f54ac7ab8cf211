/** A library that only remembers how it was called, and a world made of strings. */
import { Writable } from "node:stream";
import type { ConvertReport } from "../../src/api/convert.ts";
import type { PlanReport } from "../../src/api/plan.ts";
import type { PruneReport } from "../../src/api/pruning/prune.ts";
import type { TaskReport } from "../../src/api/tasks/convert-task.ts";
import type { Io, StopSignal } from "../../src/cli/io.ts";
import type { Library } from "../../src/cli/library.ts";
import { main } from "../../src/cli/main.ts";
import type { LogitsMetrics, VerifyReport } from "../../src/verify/report.ts";
import { expectSchema } from "./json-schemas.ts";

export const METRICS: LogitsMetrics = {
  tokens: 64,
  maxAbs: 0.0312,
  relL2: 0.00417,
  cosine: 1,
  klMean: 0.000123,
  klP99: 0.00201,
  top1: 0.984375,
  nllA: 6.2381,
  nllB: 6.2402,
  nonFiniteA: 0,
  nonFiniteB: 0,
  positions: { kl: [0.0001, 0.00201], per: 1, worst: [] },
  layers: [{ layer: 0, kind: "mamba", driftRelL2: 0.001, localRelL2: 2e-7 }],
  wiring: { maxRelL2: 2.4e-7, limit: 1e-5 },
  routing: { flips: 0 },
  unread: [],
  controls: [],
};

export const VERIFIED: VerifyReport = {
  verdict: "within",
  backend: "wasm",
  device: "2 threads, SIMD",
  rungs: [
    {
      rung: "cover",
      verdict: "same",
      metrics: { roles: 182, elements: 1234567, tensors: 182, settings: [] },
    },
    {
      rung: "bytes",
      verdict: "within",
      metrics: { roles: 182, recast: 40, bytes: 3145728, different: 0, differences: [] },
    },
    { rung: "logits", verdict: "within", metrics: { ...METRICS } },
  ],
  firstDivergence: null,
  limits: { klMean: 0.02, top1: 0.95, wiring: 1e-5 },
  certificate: null,
  roots: { a: "sha256:aaaa", b: "sha256:bbbb" },
  findings: [],
  findingDetails: [],
};

export const DIFFERENT: VerifyReport = {
  ...VERIFIED,
  verdict: "different",
  firstDivergence: { layer: 3, kind: "attention", door: "attn.q", tensors: ["model.layers.3.q_proj.weight"] },
  findings: ["the weights are untrained", "chat_template.jinja differs"],
  findingDetails: [
    {
      rule: "weights-untrained",
      severity: "note",
      at: { file: "", tensor: null, offset: null },
      message: "the weights are untrained",
    },
    {
      rule: "file-differs",
      severity: "warning",
      at: { file: "chat_template.jinja", tensor: null, offset: null },
      message: "chat_template.jinja differs",
    },
  ],
};

export const CONVERTED: ConvertReport = {
  plan: "plan-1",
  exact: false,
  source: { address: "./source", format: "hf", root: "sha256:aaaa" },
  destination: { path: "out.isologit", format: "packed", root: "sha256:bbbb", bytes: 3145728 },
  bytesRead: 6291456,
  bytesWritten: 3145728,
  bytesResumed: 0,
  seconds: 1.5,
  peakRssBytes: 220 * 2 ** 20,
  verification: VERIFIED,
  dropped: [],
  padding: { cut: 0, added: 0 },
};

export const PLANNED: PlanReport = {
  id: "plan-1",
  exact: false,
  source: { address: "./source", format: "hf", bytes: 6291456 },
  destination: { path: "out.isologit", format: "packed", bytes: 3145728 },
  files: [{ path: "", size: 3145728 }],
  tensors: [
    {
      name: "backbone.embeddings.weight",
      role: "embed",
      layer: null,
      from: "backbone.embeddings.weight",
      dtype: "BF16",
      sourceDtype: "BF16",
      shape: [512, 64],
      bytes: 65536,
      why: "recipe nemotron-h does not name it",
    },
    {
      name: "backbone.layers.0.mixer.in_proj.weight",
      role: "ssm.in",
      layer: 0,
      from: "layers.0.in_proj",
      dtype: "F8_E4M3",
      sourceDtype: "BF16",
      shape: [296, 64],
      bytes: 18944,
      why: "recipe nemotron-h casts it",
    },
  ],
  bytesRead: 6291456,
  bytesWritten: 3145728,
  peakBytes: 64 * 2 ** 20,
  warnings: ["12 padded rows stay: no file says the true vocabulary"],
  dropped: [],
  padding: { cut: 0, added: 0 },
  run: {
    source: "/models/source",
    destination: "/models/out.isologit",
    options: { to: "packed" },
    stamps: [{ path: "model.safetensors", size: 6291456, modified: "1790000000000000000" }],
  },
};

export const TASK: TaskReport = {
  plan: "plan-1",
  task: { index: 1, count: 4 },
  source: { address: "/models/source" },
  destination: { path: "/models/out.isologit" },
  staged: "/models/out.isologit.partial",
  tensors: 46,
  kept: 6,
  bytesRead: 1572864,
  bytesWritten: 786432,
  seconds: 0.5,
  peakRssBytes: 200 * 2 ** 20,
};

export const PRUNED: PruneReport = {
  source: { address: "./source", format: "hf", root: "sha256:aaaa" },
  destination: { path: "smaller", format: "hf", root: "sha256:bbbb", bytes: 3145728 },
  bytesRead: 6291456,
  bytesWritten: 3145728,
  bytesResumed: 0,
  seconds: 1.5,
  peakRssBytes: 220 * 2 ** 20,
  architecture: {
    pattern: "M-M*",
    layers: [0, 1, 4, 5],
    counts: { mamba: 2, attention: 1, mlp: 1, moe: 0 },
    ...{ ffn: 96, mambaHeads: 8, heads: 4, hidden: 64 },
    parameters: 413864,
  },
  dropped: [
    { layer: 2, kind: "mamba", score: 0.00123 },
    { layer: 3, kind: "mlp", score: null },
  ],
  depth: null,
  gainFactor: null,
  memory: null,
  search: null,
  damage: {
    tokens: 163,
    ...{ klMean: 0.125, top1: 0.71, nllParent: 4.24, nllPruned: 4.34 },
    ...{ accuracyParent: 0.1, accuracyPruned: 0.11 },
  },
  verification: VERIFIED,
};

export interface Call {
  readonly name: string;
  readonly args: readonly unknown[];
  /** what was given but the watcher and the signal */
  readonly options: Readonly<Record<string, unknown>>;
}

/** Every function answers with a good report, unless `over` says otherwise. */
export function fakeLibrary(over: Partial<Library> = {}): { library: Library; calls: Call[] } {
  const calls: Call[] = [];
  const answers: Library = {
    plan: async () => PLANNED,
    prune: async () => PRUNED,
    sizes: async () => ({ architecture: PRUNED.architecture, memory: null, search: null }),
    convert: async () => CONVERTED,
    convertPlan: async () => CONVERTED,
    convertTask: async () => TASK,
    merge: async () => CONVERTED,
    mergeTask: async () => ({
      ...{ plan: "plan-1", task: { index: 1, count: 4 }, source: TASK.source, destination: TASK.destination },
      ...{
        staged: TASK.staged,
        compared: 12,
        different: 0,
        bytesRead: 2 ** 20,
        layers: { from: 0, to: 3, backend: "wasm", device: "2 threads" },
        seconds: 0.5,
        peakRssBytes: 2 ** 27,
      },
    }),
    dispatchSlurm: async (_, __, { tasks }) => ({
      ...{ engine: "slurm", plan: "plan-1", tasks, folder: "/models/out.dispatch" },
      ...{
        scripts: ["tasks.sh", "merge.sh"],
        jobs: { tasks: "7", compare: "9", merge: "8" },
        result: CONVERTED,
      },
    }),
    dispatchK8s: async (_, { tasks }) => ({
      ...{ engine: "k8s", tasks, jobs: ["a-plan", "a-tasks", "a-merge"], manifest: "kind: Job\n" },
    }),
    recast: async () => CONVERTED,
    verify: async () => VERIFIED,
    logits: async (_, { out }) => ({
      backend: "wasm",
      device: "2 threads, SIMD",
      tokens: 16,
      vocab: 131072,
      seconds: 0.5,
      out,
    }),
    importance: async (address, { out, cheap = false }) => ({
      ...{ out, source: { address, format: "hf", root: "ab".repeat(32) } },
      ...{ prompts: 2, tokens: 57, passes: 1, bytesRead: 888704, seconds: 4.25, peakRssBytes: 2 ** 28 },
      ...{ backend: "wasm", device: "2 threads, SIMD" },
      layers: ["mamba", "mlp"].map((kind, layer) => ({
        ...{ layer, kind, cosine: 0.2577917 },
        ...(cheap
          ? { mse: null, kl: null, logitsNmse: null, rank: null }
          : { mse: 0.4869924, kl: 0.5010242, logitsNmse: 0.0647131, rank: 1 - layer }),
      })),
      stability: cheap ? null : { layers: 0.968 },
      unavailable: [],
    }),
    generate: async (_, { onText, ids = [5] }) => {
      for (const piece of ["a lamp", "\n\u001b[31m", " burns"]) onText?.(piece);
      return {
        backend: "wasm",
        device: "2 threads, SIMD",
        promptIds: ids,
        ids: [7, 8, 9],
        text: "a lamp\n\u001b[31m burns",
        stopped: "eos",
        promptSeconds: 0.25,
        seconds: 0.5,
        readAtOnce: 1,
        kept: { perTokenBytes: 512, fixedBytes: 4096 },
      };
    },
    inspect: async (_, { tensors } = {}) => ({
      format: "hf",
      dialect: "hf",
      family: "nemotron-h",
      pattern: "M-M*-",
      layers: { mamba: 2, attention: 1, mlp: 2, moe: 0 },
      dims: { hidden: 64, vocab: 500 },
      paddingRows: 12,
      ranks: { tp: 1, pp: 1, ep: 1 },
      iteration: null,
      parameters: 8101234567,
      bytes: 16202469134,
      dtypes: { BF16: { tensors: 40, bytes: 16202467134 }, F32: { tensors: 4, bytes: 2000 } },
      quantization: null,
      sidecars: ["config.json", "tokenizer.json"],
      ...(tensors
        ? { tensors: [{ name: "backbone.D", role: "ssm.d", layer: 0, dtype: "F32", shape: [8] }] }
        : {}),
    }),
    download: async (repo, { files = [], revision = "main" } = {}) => ({
      repo,
      revision,
      commit: "0123456789abcdef0123456789abcdef01234567",
      path: "/cache/snapshots/0123",
      files: (files.length > 0 ? files : ["config.json"]).map((path) => ({ path, size: 1024, fetched: 0 })),
      bytes: 1024,
      fetched: 0,
      dryRun: false,
      seconds: 0.5,
    }),
    upload: async (repo, path) => ({
      repo,
      revision: "main",
      url: `https://huggingface.co/${repo}`,
      commits: ["0123456789abcdef0123456789abcdef01234567"],
      pullRequest: null,
      files: [{ path, size: 1024, sent: true }],
      bytes: 1024,
      sent: 1024,
      card: true,
      verdict: "same",
      seconds: 0.5,
    }),
    whoami: async () => ({
      name: "owner",
      type: "user",
      organizations: ["lab"],
      endpoint: "https://huggingface.co",
      token: { name: "laptop", role: "write", from: "HF_TOKEN" },
    }),
    cacheLs: async () => ({ path: "/cache", bytes: 0, repos: [] }),
    cacheVerify: async () => ({ ok: true, blobs: 1, bytes: 1024, findings: [] }),
    cacheRm: async (target) => ({ removed: [target], bytes: 1024 }),
    scan: async () => ({ ok: true, findings: [] }),
    check: async () => ({ ok: true, findings: [], servable: true }),
    diff: async () => ({ equal: true, tensors: [], config: [], sidecars: [] }),
    doctor: async ({ kernels } = {}) => ({
      node: "v20.20.2",
      platform: "linux x64",
      cores: 2,
      memoryBytes: 8 * 2 ** 30,
      diskFreeBytes: 100 * 2 ** 30,
      backends: [
        {
          ...{ id: "wasm", available: true, device: "2 threads", driver: null },
          ...{ software: true, extensions: [], reason: null },
        },
        {
          id: "webgpu",
          available: false,
          device: null,
          driver: null,
          software: false,
          extensions: [],
          reason: "no Vulkan loader",
        },
      ],
      staging: [],
      leftovers: [],
      ...(kernels
        ? {
            kernels: [
              {
                ...{ id: "linear", backend: "wasm", device: "2 threads", cases: 12 },
                ...{
                  worstError: 1.2e-6,
                  bound: 4e-6,
                  ok: true,
                  speed: { value: 71.4, unit: "GFLOP/s" as const },
                },
              },
              {
                ...{ id: "ssd", backend: "wasm", device: "2 threads", cases: 9 },
                ...{
                  worstError: 5e-3,
                  bound: 1e-5,
                  ok: false,
                  speed: { value: 3, unit: "GFLOP/s" as const },
                },
              },
            ],
          }
        : {}),
    }),
    loadPlugins: async (names) => names.map((name) => ({ name })),
    formats: () => ({
      formats: [
        { id: "hf", title: "Hugging Face folder", reads: true, writes: true, endings: [] },
        { id: "packed", title: "one packed file", reads: true, writes: true, endings: [".isologit"] },
        { id: "nemo1", title: ".nemo archive", reads: true, writes: false, endings: [] },
      ],
      dialects: [{ id: "hf", family: "nemotron-h" }],
      families: [{ id: "nemotron-h", recipes: ["nemotron-h", "all-linear"] }],
      recasts: [
        { id: "keep", writtenBy: ["hf", "packed"] },
        { id: "fp8-e4m3", writtenBy: ["hf", "packed"] },
      ],
      backends: ["wasm"],
    }),
    ...over,
  };
  const remembered = Object.entries(answers).map(([name, answer]) => [
    name,
    (...args: unknown[]) => {
      const last = args.at(-1);
      const { watch: _, signal: __, ...options } = (typeof last === "object" ? last : {}) as Call["options"];
      calls.push({ name, args: args.filter((arg) => typeof arg !== "object"), options });
      return (answer as (...a: unknown[]) => unknown)(...args);
    },
  ]);
  return { library: Object.fromEntries(remembered), calls };
}

class Text extends Writable {
  text = "";
  readonly isTTY: boolean;
  constructor(isTTY: boolean) {
    super();
    this.isTTY = isTTY;
  }
  override _write(chunk: Buffer, _: string, done: () => void) {
    this.text += chunk.toString();
    done();
  }
}

export interface World {
  readonly over?: Partial<Library>;
  readonly env?: Io["env"];
  readonly tty?: boolean;
  /** gets the sender of signals before the run begins */
  readonly signals?: (send: (signal: StopSignal) => void) => void;
}

/** One run of the command line in such a world. */
export async function run(line: string | readonly string[], world: World = {}) {
  const { library, calls } = fakeLibrary(world.over);
  const [stdout, stderr] = [new Text(world.tty ?? false), new Text(world.tty ?? false)];
  const listeners = new Set<(signal: StopSignal) => void>();
  const exits: number[] = [];
  world.signals?.((signal) => {
    for (const listener of listeners) listener(signal);
  });
  const argv = typeof line === "string" ? line.split(" ").filter((word) => word !== "") : line;
  const status = await main(argv, library, {
    stdout,
    stderr,
    env: world.env ?? {},
    onSignal(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    exit: (code) => exits.push(code),
  });
  return {
    status,
    stdout: stdout.text,
    stderr: stderr.text,
    calls: calls.filter(({ name }) => name !== "formats"),
    exits,
    listening: listeners.size,
    /** what it printed with `--json`, which follows the schema of the command */
    json() {
      const report = JSON.parse(stdout.text);
      expectSchema(argv, report);
      return report;
    },
  };
}
