/** Everything that a report holds against a checkpoint, as one list. Rules have stable names: scripts look for them. */

import { counted, measured } from "../core/figures.ts";
import type { DiffReport, RungReport, Severity, TensorDifference, VerifyReport } from "../index.ts";
import { comparedLogits, measures } from "./measures.ts";
import { judged, type Subject, verificationOf } from "./subject.ts";

export interface Problem {
  readonly rule: string;
  readonly severity: Severity;
  readonly message: string;
  /** the checkpoint's address, and the file in it where it is known */
  readonly address: string;
  readonly file: string | null;
  readonly tensor: string | null;
  /** bytes from the start of `file` */
  readonly offset: number | null;
}

/** What is no finding of `check` or `scan` and no error code. */
export const RULES: Readonly<Record<string, string>> = {
  "rung-cover": "Settings, tokenizer or the set of tensors are not the same on both sides",
  "rung-bytes": "Stored values are neither the same bits nor the right rounding",
  "rung-logits": "The two checkpoints do not run alike on the same tokens",
  "rung-reference": "Logits recorded by other software are not met",
  "first-divergence": "The lowest layer that is wrong",
  "control-missed": "A sabotage of the checkpoint was not seen, so that the proof has a hole",
  "file-absent": "A side file is on one side only",
  "metadata-format": "A weight file names a format that Transformers refuses",
  "padding-values": "Rows that pad the vocabulary are not zero",
  "file-respelt": "A side file says the same in other words",
  "file-unsigned": "A file is not as it was signed",
  "file-added": "A file that was not there when the checkpoint was certified",
  "card-changed": "The model card was written anew since the checkpoint was certified",
  "files-not-compared": "Files were not compared with those that were certified",
  "config-respelt": "A config says the same in other words",
  "config-key-unknown": "Config keys that this version does not know, and that engines may obey",
  "config-precision": "A config says that the model is computed in another precision",
  "activation-scale-absent": "A scale of activations or caches is on one side only",
  "activation-scale-left": "A scale of activations that a recast left behind",
  "scale-larger": "A scale is larger than its values need",
  "quantization-undeclared": "FP8 weights without a quantization_config",
  "quantization-absent": "A quantization_config without FP8 weights",
  "quantization-invalid": "A quantization_config that cannot be read",
  "quantization-method": "A quantization_config under which no engine reads FP8 weights",
  "quantization-contradiction": "A quantization_config that says other than what is stored",
  "quantization-unchecked": "A quantization_config with expressions that could not be tried",
  "activation-scale-missing": "Static activations without a stored scale",
  "activation-scale-undeclared": "A stored scale of activations that the config does not declare",
  "scale-range": "A scale that is no number, or out of any model's range",
  "dtype-contradiction": "A config that names another type than most weights have",
  "weights-lost": "Weights became 0 in a recast",
  "tensor-dead": "All elements of a tensor are 0, or NaN",
  "control-void": "Sabotages that these weights cannot show, since layers are dead",
  "limit-exceeded": "A measure of quality exceeds its limit",
  "limit-wider": "A certificate that was issued under limits wider than usual",
  "limit-unjudged": "A limit that was given could not be judged",
  "quality-unjudged": "What a recast costs is reported, and not judged",
  "weights-untrained": "The weights predict text no better than chance",
  "logits-not-finite": "Logits are NaN or infinite",
  "behaviour-unchecked": "No forward pass was compared with the certificate",
  "experts-unknown": "The certificate does not say which experts computed",
  "certificate-contradicted": "A checkpoint is not what its own certificate says",
  "certificate-invalid": "A checkpoint's own certificate cannot be believed",
  "certificate-elsewhere": "A certificate beside a checkpoint is of another format",
  "certificate-absent": "There is no certificate",
  suspect: "What a tensor of the lowest wrong layer looks like beside the right one",
  "tensor-differs": "A tensor is not the same on both sides",
  "tensor-absent": "A tensor is on one side only",
  "tensor-uncomparable": "A tensor could not be compared to its end",
  "config-differs": "A setting is not the same on both sides",
  "file-differs": "A side file is not the same on both sides",
};

/** In the order of the report. */
export function problemsOf(subject: Subject): readonly Problem[] {
  const address = judged(subject);
  const problem = (
    rule: string,
    severity: Severity,
    message: string,
    at: {
      readonly file?: string | null;
      readonly tensor?: string | null;
      readonly offset?: number | null;
    } = {},
  ): Problem => {
    const { file = null, tensor = null, offset = null } = at;
    return { rule, severity, message, address, file: file === "" ? null : file, tensor, offset };
  };
  if (subject.command === "check" || subject.command === "scan") {
    return subject.report.findings.map(({ rule, severity, message, at }) =>
      problem(rule, severity, message, at),
    );
  }
  if (subject.command === "diff") return differences(subject.report, problem);
  if (subject.command === "stopped") {
    const { code, message, at, next } = subject.report.error;
    const rule = code.toLowerCase().replaceAll("_", "-");
    const place = at.file === undefined ? "" : `, in ${at.file}`;
    return [problem(rule, "error", `${message}${place}; next: ${next}`, at)];
  }
  const verification = verificationOf(subject);
  return verification === null ? [] : verdicts(verification, problem);
}

type Make = (
  rule: string,
  severity: Severity,
  message: string,
  at?: { readonly file?: string; readonly tensor?: string | null },
) => Problem;

function verdicts(report: VerifyReport, problem: Make): Problem[] {
  const { rungs, firstDivergence: first, findingDetails } = report;
  const failed = rungs.flatMap((rung): Problem[] => {
    if (rung.verdict === "same" || rung.verdict === "within") return [];
    const severity = rung.verdict === "different" ? "error" : "warning";
    const text = [...measures(rung), ...unlike(rung)].join(", ");
    return [problem(`rung-${rung.rung}`, severity, `${rung.rung}: ${rung.verdict}; ${text}`)];
  });
  const tensors = rungs.flatMap((rung) =>
    differencesOf(rung).map(({ role, tensors, message }) =>
      problem("tensor-differs", "error", `${role}: ${message}`, { tensor: tensors.at(-1) ?? role }),
    ),
  );
  const divergence =
    first === null
      ? []
      : [problem("first-divergence", "error", divergenceText(first), { tensor: first.tensors[0] ?? null })];
  const missed = (comparedLogits(report)?.controls ?? [])
    .filter(({ caught }) => caught === false)
    .map(({ layer, kind, door, mutation }) =>
      problem(
        "control-missed",
        "warning",
        `layer ${layer} (${kind}), door ${door}: ${mutation} was not seen`,
      ),
    );
  const found = findingDetails
    .filter(({ rule }) => rule !== "control-missed") // the list of controls has them
    .map(({ rule, severity, message, at }) => problem(rule, severity, message, at));
  return [...failed, ...divergence, ...tensors, ...missed, ...found];
}

export function divergenceText(first: NonNullable<VerifyReport["firstDivergence"]>): string {
  const door = first.door === undefined ? "" : `, door ${first.door}`;
  const tensors = first.tensors.length === 0 ? "" : `: ${counted(first.tensors.length, "suspect")}`;
  return `the first divergence is in layer ${first.layer} (${first.kind})${door}${tensors}`;
}

/** What a rung holds against a checkpoint, one by one: settings or files, or roles with what is wrong. */
export function objections(rung: RungReport): readonly string[] {
  if (rung.rung === "cover" && "differences" in rung.metrics) return rung.metrics.differences;
  return [...unlike(rung), ...differencesOf(rung).map(({ role, message }) => `${role}: ${message}`)];
}

/** Settings that are not the same. */
const unlike = ({ metrics }: RungReport): readonly string[] =>
  "settings" in metrics ? metrics.settings : [];

/** Roles that the bytes rung found to differ. */
function differencesOf(rung: RungReport): readonly TensorDifference[] {
  if (rung.rung !== "bytes") return [];
  return rung.metrics.differences.map((difference) =>
    typeof difference === "string"
      ? { role: difference, tensors: [], message: "not as certified" }
      : difference,
  );
}

function differences({ tensors, config, sidecars }: DiffReport, problem: Make): Problem[] {
  return [
    ...tensors
      .filter(({ equal }) => !equal)
      .map(({ role, layer, a, b, maxAbs, relL2, error }) => {
        const name = `${role}${layer === null ? "" : ` of layer ${layer}`}`;
        const at = { tensor: b ?? a };
        if (error !== undefined) return problem("tensor-uncomparable", "error", `${name}: ${error}`, at);
        if (a === null || b === null) {
          return problem("tensor-absent", "error", `${name}: only in ${a === null ? "B" : "A"}`, at);
        }
        const sizes = [
          maxAbs === null ? [] : `max abs ${measured(maxAbs)}`,
          relL2 === null ? [] : `relative L2 ${measured(relL2)}`,
        ].flat();
        return problem("tensor-differs", "error", [`${name} differs`, ...sizes].join(", "), at);
      }),
    ...config.map(({ key, a, b }) =>
      problem("config-differs", "error", `${key}: ${JSON.stringify(a)} / ${JSON.stringify(b)}`, {
        file: "config.json",
      }),
    ),
    ...sidecars.map(({ path, a, b }) => {
      const how = a === null ? "is only in B" : b === null ? "is only in A" : "differs";
      return problem("file-differs", "warning", `${path} ${how}`, { file: path });
    }),
  ];
}

const SEVERITIES: readonly Severity[] = ["danger", "error", "warning", "note"];

/** The first `most`, the gravest first, and how many were left out. */
export function gravest<T extends { readonly severity: Severity }>(problems: readonly T[], most: number) {
  const shown = SEVERITIES.flatMap((severity) => problems.filter((one) => one.severity === severity)).slice(
    0,
    most,
  );
  return { shown, leftOut: problems.length - shown.length };
}
