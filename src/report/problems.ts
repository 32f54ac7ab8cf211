/** All problems of a report as one list. Names of rules are stable: scripts use them. */
import { formatMeasure, formatQuantity } from "../core/figures.ts";
import type { DiffReport, RungReport, Severity, TensorDifference, VerifyReport } from "../index.ts";
import { comparedLogits, measureTexts } from "./measures.ts";
import { judgedAddress, type Subject, verificationOf } from "./subject.ts";

export interface Problem {
  readonly rule: string;
  readonly severity: Severity;
  readonly message: string;
  /** address of the checkpoint, and the file in it if it is known */
  readonly address: string;
  readonly file: string | null;
  readonly tensor: string | null;
  /** bytes from the start of `file` */
  readonly offset: number | null;
}

/** Rules other than those of `check`, `scan` and error codes. */
export const RULES: Readonly<Record<string, string>> = {
  "rung-cover": "Settings, tokenizer or the set of tensors differ between the two checkpoints",
  "rung-bytes": "Stored values are neither equal bit by bit nor correctly rounded",
  "rung-logits": "The two checkpoints compute different results for the same tokens",
  "rung-reference": "The logits do not match logits that other software recorded",
  "first-divergence": "The lowest layer that differs",
  "control-missed": "The comparison did not detect a deliberate fault, so the proof has a gap",
  "file-absent": "Only one checkpoint has this side file",
  "serving-tokenizer": "A folder without a tokenizer",
  "serving-eos": "A folder that does not say which token ends a text",
  "metadata-format": "A weight file names a format that Transformers refuses",
  "padding-values": "Rows that pad the vocabulary are not zero",
  "file-respelt": "Side files have equal content in different spelling",
  "file-unsigned": "A file differs from the signed file",
  "file-added": "A file was added after the checkpoint was certified",
  "card-changed": "The model card was changed after the checkpoint was certified",
  "files-not-compared": "Files were not compared with the certified files",
  "config-respelt": "Configs have equal content in different spelling",
  "config-key-unknown": "A config has keys that this version does not know and that other software may use",
  "config-precision": "A config asks for another precision of computation",
  "activation-scale-absent": "Only one checkpoint has a scale of activations or caches",
  "activation-scale-left": "A recast added scales of activations or caches, or left them behind",
  "scale-larger": "A scale is larger than its values need",
  "quantization-undeclared": "FP8 weights without a quantization_config",
  "quantization-absent": "A quantization_config without FP8 weights",
  "quantization-invalid": "A quantization_config that cannot be read",
  "quantization-method": "A quantization_config with which no software reads FP8 weights",
  "quantization-contradiction": "A quantization_config that contradicts the stored weights",
  "quantization-list-key": "A list of modules under a key that engines do not read",
  "quantization-entry-unmatched": "Entries of a list that name no module",
  "quantization-module": "A module in codes that no engine runs so",
  "quantization-beside": "hf_quant_config.json contradicts the stored weights",
  "quantization-files": "hf_quant_config.json disagrees with config.json",
  "quantization-unchecked": "A quantization_config with expressions that could not be tested",
  "activation-scale-missing": "Static activations without a stored scale",
  "activation-scale-undeclared": "A stored scale of activations that the config does not declare",
  "kv-scale-shape": "A scale of a KV cache that is not one number",
  "engine-head": "A quantized head that some engines take for values",
  "engine-fused": "Modules that an engine fuses are stored differently",
  "scale-range": "A scale that is not a number, or outside the range of any model",
  "dtype-contradiction": "A config that names another dtype than most weights have",
  "weights-lost": "A recast changed weights to 0, or rounded a part of a tensor too coarsely",
  "tensor-dead": "All elements of a tensor are 0 or NaN",
  "control-void": "Deliberate faults had no effect, because layers of these weights compute nothing",
  "limit-exceeded": "A quality measure exceeds its limit",
  "limit-wider": "A certificate was issued with wider limits than usual",
  "limit-unjudged": "A given limit could not be judged",
  "quality-unjudged": "The cost of a recast is reported but not judged",
  "weights-untrained": "The weights predict text no better than chance",
  "logits-not-finite": "Logits are NaN or infinite",
  "behaviour-unchecked": "No forward pass was compared with the certificate",
  "experts-unknown": "The certificate does not record which experts were used",
  "certificate-contradicted": "A checkpoint contradicts its own certificate",
  "certificate-invalid": "The certificate of a checkpoint is not valid",
  "certificate-elsewhere": "A certificate beside a checkpoint is for another format",
  "certificate-absent": "There is no certificate",
  suspect: "How a tensor of the lowest layer that differs deviates from the correct tensor",
  "tensor-differs": "A tensor differs between the two checkpoints",
  "tensor-absent": "Only one checkpoint has this tensor",
  "tensor-uncomparable": "A tensor could not be compared completely",
  "config-differs": "A setting differs between the two checkpoints",
  "file-differs": "A side file differs between the two checkpoints",
};

/** In the order of the report. */
export function problemsOf(subject: Subject): readonly Problem[] {
  const address = judgedAddress(subject);
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
    const text = [...measureTexts(rung), ...unlike(rung)].join(", ");
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
        `layer ${layer} (${kind}), door ${door}: ${mutation} was not detected`,
      ),
    );
  const found = findingDetails
    .filter(({ rule }) => rule !== "control-missed") // the list of controls has these
    .map(({ rule, severity, message, at }) => problem(rule, severity, message, at));
  return [...failed, ...divergence, ...tensors, ...missed, ...found];
}

export function divergenceText(first: NonNullable<VerifyReport["firstDivergence"]>): string {
  const door = first.door === undefined ? "" : `, door ${first.door}`;
  const tensors = first.tensors.length === 0 ? "" : `: ${formatQuantity(first.tensors.length, "suspect")}`;
  return `the first divergence is in layer ${first.layer} (${first.kind})${door}${tensors}`;
}

/** The differences that a rung found: settings, files or roles, one text each. */
export function objections(rung: RungReport): readonly string[] {
  if (rung.rung === "cover" && "differences" in rung.metrics) return rung.metrics.differences;
  return [...unlike(rung), ...differencesOf(rung).map(({ role, message }) => `${role}: ${message}`)];
}

/** Settings that differ. */
const unlike = ({ metrics }: RungReport): readonly string[] =>
  "settings" in metrics ? metrics.settings : [];

/** Roles that the bytes rung found to differ. */
function differencesOf(rung: RungReport): readonly TensorDifference[] {
  if (rung.rung !== "bytes") return [];
  return rung.metrics.differences.map((difference) =>
    typeof difference === "string"
      ? { role: difference, tensors: [], message: "differs from the certificate" }
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
          maxAbs === null ? [] : `max abs ${formatMeasure(maxAbs)}`,
          relL2 === null ? [] : `relative L2 ${formatMeasure(relL2)}`,
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

/** The `most` most severe problems, and the number of the others. */
export function selectGravest<T extends { readonly severity: Severity }>(
  problems: readonly T[],
  most: number,
) {
  const shown = SEVERITIES.flatMap((severity) => problems.filter((one) => one.severity === severity)).slice(
    0,
    most,
  );
  return { shown, leftOut: problems.length - shown.length };
}
