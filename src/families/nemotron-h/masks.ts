/**
 * Where the units of Nemotron-H are in the streams of its forward pass. It is written by hand and not derived from
 * `prunable.ts`, because it checks that table: a role that is cut at the wrong rows gives other streams.
 */
import type { Masks, StreamUnits } from "../forward.ts";
import type { NemotronHDims } from "./dims.ts";

export function masks(d: NemotronHDims): Masks {
  const hidden: StreamUnits = { unit: "hidden", count: d.hidden, size: 1 };
  const channels: StreamUnits = { unit: "mambaHeads", count: d.mambaHeads, size: d.mambaHeadDim };
  const perHead: StreamUnits = { unit: "mambaHeads", count: d.mambaHeads, size: 1 };
  const query: StreamUnits = { unit: "heads", count: d.heads, size: d.headDim };
  const ffn: StreamUnits = { unit: "ffn", count: d.ffn, size: 1 };
  const routed = d.latent > 0 ? [] : [hidden];
  return {
    streams: {
      residual: [hidden],
      u: [hidden],
      out: [hidden],
      words: [hidden],
      "words.u": [hidden],
      joined: [hidden, hidden],
      z: [channels],
      x: [channels],
      "conv.x": [channels],
      y: [channels],
      g: [channels],
      dt: [perHead],
      q: [query],
      a: [query],
      up: [ffn],
      act: [ffn],
      shared: [hidden],
      routed: [hidden],
      dealt: routed,
      "expert.down": routed,
    },
    norms: {
      u: { unit: "hidden", eps: "eps" },
      "words.u": { unit: "hidden", eps: "eps" },
      g: { unit: "mambaHeads", eps: "mixerEps" },
    },
    groups: { ffn: 1, mambaHeads: d.groups, heads: d.kvHeads, hidden: 1 },
  };
}
