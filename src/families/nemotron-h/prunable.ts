/** What of a Nemotron-H model may be cut, role by role. Expert widths are not units: E layers are kept or dropped whole. */
import type { AxisPart, Prunable } from "../prunable.ts";
import type { Settings } from "../structure.ts";
import type { Unit } from "../units.ts";
import type { NemotronHDims } from "./dims.ts";
import { LETTERS, type NemotronHLayerKind } from "./settings.ts";

const whole = (count: number): AxisPart => ({ unit: null, count, size: 1 });

function axes(d: NemotronHDims): Readonly<Record<string, readonly (readonly AxisPart[])[]>> {
  const of = (unit: Unit, size = 1): AxisPart => ({ unit, count: d[unit], size });
  const hidden = [of("hidden")];
  const channels = of("mambaHeads", d.mambaHeadDim);
  const [query, ffn] = [[of("heads", d.headDim)], [of("ffn")]];
  const [bAndC, perHead, routed] = [
    whole(2 * d.groupState),
    [[of("mambaHeads")]],
    d.latent > 0 ? [whole(d.latent)] : hidden,
  ];
  return {
    embed: [[whole(d.vocab)], hidden],
    head: [[whole(d.vocab)], hidden],
    norm: [hidden],
    "final.norm": [hidden],
    "ssm.in": [[channels, channels, bAndC, of("mambaHeads")], hidden], // z, x, B and C, dt
    "ssm.conv": [[channels, bAndC], [whole(1)], [whole(d.taps)]],
    "ssm.conv.bias": [[channels, bAndC]],
    "ssm.A_log": perHead,
    "ssm.D": perHead,
    "ssm.dt_bias": perHead,
    "ssm.norm": [[channels]],
    "ssm.out": [hidden, [channels]],
    "attn.q": [query, hidden],
    "attn.k": [[whole(d.kv)], hidden],
    "attn.v": [[whole(d.kv)], hidden],
    "attn.o": [hidden, query],
    "mlp.up": [ffn, hidden],
    "mlp.down": [hidden, ffn],
    "moe.gate": [[whole(d.experts)], hidden],
    "moe.gate.bias": [[whole(d.experts)]],
    "moe.latent.in": [[whole(d.latent)], hidden],
    "moe.up": [[whole(d.moeFfn)], routed],
    "moe.down": [routed, [whole(d.moeFfn)]],
    "moe.latent.out": [hidden, [whole(d.latent)]],
    "moe.shared.up": [[whole(d.moeShared)], hidden],
    "moe.shared.down": [hidden, [whole(d.moeShared)]],
    "mtp.embed_norm": [hidden],
    "mtp.hidden_norm": [hidden],
    "mtp.join": [hidden, [of("hidden"), of("hidden")]],
    "mtp.final_norm": [hidden],
  };
}

/** The settings that only models with a kind of layer have. */
const SETTINGS_OF: Readonly<Record<NemotronHLayerKind, readonly string[]>> = {
  mamba: ["mambaHeads", "mambaHeadDim", "state", "groups", "convKernel", "mixerEps"],
  attention: ["heads", "kvHeads", "headDim"],
  mlp: ["ffn"],
  moe: [
    ...["experts", "topK", "moeFfn", "moeShared", "latent"],
    ...["routeGroups", "routeTopGroups", "routeNormalise", "routeScale"],
  ],
};

export const prunable: Prunable<NemotronHDims> = {
  on: { ffn: "mlp", mambaHeads: "mamba", heads: "attention", hidden: "every" },
  groups(unit, d) {
    if (unit === "mambaHeads") return { count: d.groups, of: "group" };
    return { count: unit === "heads" ? d.kvHeads : 1, of: unit === "heads" ? "key and value head" : "model" };
  },
  gain: { mambaHeads: "ssm.norm" },
  axes,
  settings(settings, layers, widths) {
    const all = String(settings.pattern);
    const pattern = layers.map((layer) => all[layer]).join("");
    const letters = pattern + String(settings.mtpPattern ?? "");
    const gone = Object.entries(LETTERS)
      .filter(([letter]) => !letters.includes(letter))
      .flatMap(([, kind]) => SETTINGS_OF[kind]);
    const left = Object.entries({ ...settings, ...widths, pattern }).filter(
      ([name, value]) => value !== undefined && !gone.includes(name),
    );
    return Object.fromEntries(left) as Settings; // every undefined value was left out
  },
};
