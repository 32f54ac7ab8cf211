/** A fault of a quantised folder, and whom it concerns. */

import type { DeclarationFile } from "../../checkpoint/declared-quantization.ts";
import type { Severity } from "../../core/finding.ts";
import type { EngineId } from "../engines/engine.ts";
import { ENGINES } from "../engines/index.ts";

/** A fault as reports show it. */
export interface QuantizationFault {
  /** stable, because scripts search for it */
  readonly rule: string;
  readonly severity: Severity;
  readonly message: string;
  readonly tensor: string | null;
  /** engines that read the folder otherwise than it is meant; empty: the fault does not depend on the engine */
  readonly engines: readonly EngineId[];
  /** the file that declares the quantisation; null: the fault concerns no declaration */
  readonly file: DeclarationFile | null;
}

/** A fault that does not depend on the engine. */
export function generalFault(
  rule: string,
  severity: Severity,
  message: string,
  tensor: string | null = null,
): QuantizationFault {
  return { rule, severity, message, tensor, engines: [], file: null };
}

/** A fault before it is known which engines the user asks about. */
export interface UnjudgedFault extends Omit<QuantizationFault, "severity"> {
  /** "asked": reported only where the user names the engine */
  readonly severity: Severity | "asked";
  /** what an engine does, in words that follow its name */
  readonly reasons: Partial<Record<EngineId, string>>;
  /** the engines load the folder, and compute right under the conditions of the message */
  readonly loads: boolean;
}

type FaultDetails = Partial<Pick<UnjudgedFault, "tensor" | "engines" | "reasons" | "loads" | "file">>;

export function fault(
  rule: string,
  severity: UnjudgedFault["severity"],
  message: string,
  { tensor = null, engines = [], reasons = {}, loads = false, file = null }: FaultDetails = {},
): UnjudgedFault {
  return { rule, severity, message, tensor, engines, reasons, loads, file };
}

/**
 * The faults for these engines. What an engine cannot load, or loads wrongly, is an error if the user asked for it.
 *
 * @param asked undefined: all engines, each fault with the severity of its rule
 */
export function judgeFaults(
  faults: readonly UnjudgedFault[],
  asked: readonly EngineId[] | undefined,
): readonly QuantizationFault[] {
  return faults.flatMap((unjudged) => {
    const { rule, tensor, file, loads } = unjudged;
    const isGeneral = unjudged.engines.length === 0;
    const engines = unjudged.engines.filter((id) => asked?.includes(id) ?? true);
    if (engines.length === 0 && !isGeneral) return [];
    const severity = severityFor(unjudged.severity, asked !== undefined && !isGeneral, loads);
    if (severity === null) return [];
    return [{ rule, severity, message: messageFor(unjudged, engines), tensor, engines, file }];
  });
}

function severityFor(severity: UnjudgedFault["severity"], isAsked: boolean, loads: boolean): Severity | null {
  if (!isAsked) return severity === "asked" ? null : severity;
  if (!loads) return "error";
  return severity === "asked" ? "warning" : severity;
}

/** `vLLM, SGLang: MESSAGE; vLLM does this`; without a message `vLLM does this`. */
function messageFor({ message, reasons }: UnjudgedFault, engines: readonly EngineId[]): string {
  const named = ENGINES.filter(({ id }) => engines.includes(id));
  const explained = named.flatMap(({ id, name }) =>
    reasons[id] === undefined ? [] : `${name} ${reasons[id]}`,
  );
  const names = named.map(({ name }) => name).join(", ");
  const whole = message === "" ? [] : [names === "" ? message : `${names}: ${message}`];
  return [...whole, ...explained].join("; ");
}
