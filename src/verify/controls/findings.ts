/** What positive controls leave unproved, in words: sabotages that were missed, and those that nothing could show. */
import type { Finding } from "../../core/finding.ts";
import { remark } from "../../core/finding.ts";
import type { Control } from "./controls.ts";

/** Names in a finding; a report has the whole list. */
const MOST_NAMES = 3;

export function controlFindings(controls: readonly Control[]): readonly Finding[] {
  const missed = controls
    .filter(({ caught }) => caught === false)
    .map(
      ({ layer, kind, door, mutation }) =>
        `layer ${layer} (${kind}): with these weights and tokens the door ${door} does not show ${mutation}; ` +
        "give more tokens (--tokens), or others (--seed, --ids)",
    );
  const kinds = [...new Set(controls.map(({ kind }) => kind))];
  const silent = kinds.flatMap((kind) => voidFindings(kind, controls));
  const proven = controls.some(({ caught, matrix }) => caught === true && matrix);
  const nothing =
    proven || missed.length > 0
      ? []
      : [
          "no sabotage of a layer's matrix can show with these weights and tokens: nothing proves the comparison",
        ];
  return [
    ...missed.map((message) => remark("control-missed", message)),
    ...[...silent, ...nothing].map((message) => remark("control-void", message)),
  ];
}

/** Of equal blocks alone nothing is said while others of the kind show: gains of 1 and biases of 0 are usual. */
function voidFindings(kind: string, controls: readonly Control[]): readonly string[] {
  const ofKind = controls.filter((one) => one.kind === kind);
  const void_ = ofKind.filter(({ caught }) => caught === null);
  if (void_.length === ofKind.length) {
    const why = void_.some((one) => one.void === "zero input") ? "or read nothing but zeros" : "";
    const blocks = ["their blocks are equal", why].filter(Boolean).join(" ");
    return [`no control of the kind ${kind} can show, in any of its layers: ${blocks}`];
  }
  const dark = void_.filter((one) => one.void === "zero input");
  if (dark.length === 0) return [];
  const names = [...new Set(dark.map(({ mutation }) => mutation.split(/[: ]/)[0]!))];
  const more = names.length > MOST_NAMES ? ` and ${names.length - MOST_NAMES} more` : "";
  return [
    `${dark.length} of ${ofKind.length} controls of the kind ${kind} cannot show, for their input is zeros in all of ` +
      `its layers: ${names.slice(0, MOST_NAMES).join(", ")}${more}`,
  ];
}
