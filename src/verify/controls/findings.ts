/** Findings about positive controls: faults that the comparison missed, and controls that could have no effect. */
import type { Finding } from "../../core/finding.ts";
import { remark } from "../../core/finding.ts";
import type { Control } from "./trials.ts";

/** Most names in a finding; the report has the complete list. */
const MOST_NAMES = 3;

/** The findings about the controls of a run. */
export function controlFindings(controls: readonly Control[]): readonly Finding[] {
  const missed = controls
    .filter(({ caught }) => caught === false)
    .map(
      ({ layer, kind, door, mutation }) =>
        `layer ${layer} (${kind}): with these weights and tokens, the door ${door} does not show this fault: ${mutation}; ` +
        "give more tokens (`tokens`) or other tokens (`seed`, `ids`)",
    );
  const kinds = [...new Set(controls.map(({ kind }) => kind))];
  const silent = kinds.flatMap((kind) => voidFindings(kind, controls));
  const proven = controls.some(({ caught, matrix }) => caught === true && matrix);
  const nothing =
    proven || missed.length > 0
      ? []
      : [
          "no control of a layer's matrix can show a fault with these weights and tokens: nothing proves the comparison",
        ];
  return [
    ...missed.map((message) => remark("control-missed", message)),
    ...[...silent, ...nothing].map((message) => remark("control-void", message)),
  ];
}

/**
 * Findings about void controls of a kind. Equal blocks are not reported while other controls of the kind have an effect:
 * gains of 1 and biases of 0 are usual.
 */
function voidFindings(kind: string, controls: readonly Control[]): readonly string[] {
  const ofKind = controls.filter((control) => control.kind === kind);
  const void_ = ofKind.filter(({ caught }) => caught === null);
  if (void_.length === ofKind.length) {
    const zeroInput = void_.some((control) => control.void === "zero input") ? "or they read only zeros" : "";
    const reasons = ["their blocks are equal", zeroInput].filter(Boolean).join(" ");
    return [`no control of the kind ${kind} can show a fault in any layer of the kind: ${reasons}`];
  }
  const withoutInput = void_.filter((control) => control.void === "zero input");
  if (withoutInput.length === 0) return [];
  const names = [...new Set(withoutInput.map(({ mutation }) => mutation.split(/[: ]/)[0]!))];
  const more = names.length > MOST_NAMES ? ` and ${names.length - MOST_NAMES} more` : "";
  return [
    `${withoutInput.length} of ${ofKind.length} controls of the kind ${kind} cannot show a fault, because their input is zeros in all ` +
      `layers of the kind: ${names.slice(0, MOST_NAMES).join(", ")}${more}`,
  ];
}
