/**
 * Which units of a layer get scores: the channels of its MLP, its Mamba heads, its query heads. They are found by the streams
 * of its stages, whose names all families share.
 */
import type { Stage } from "../../families/forward.ts";
import type { MatchedModel } from "../../families/model.ts";
import { mainLayers } from "../../families/model.ts";
import { type Layer, roleKey } from "../../families/structure.ts";

/** One kind of unit in one layer. */
export interface LayerUnits {
  readonly layer: Layer;
  /** prefix of the tensors that hold the scores */
  readonly kind: UnitKind;
  /** number of units */
  readonly count: number;
  /** elements of a unit in the streams below */
  readonly size: number;
  /** the stream that the layer's output matrix multiplies, [T, count * size] */
  readonly output: string;
  /** the stream whose magnitudes are `activation`, [T, count * size] */
  readonly activation: string;
  /** the stream whose magnitudes are `preactivation`; absent: there is none */
  readonly preactivation?: string;
}

type UnitKind = "ffn" | "mamba" | "attention";

/** Scores that a model cannot have. */
export interface Unavailable {
  readonly layers: readonly number[];
  readonly scores: readonly string[];
  readonly why: string;
}

interface UnitRow {
  readonly kind: UnitKind;
  /** the role of the output matrix */
  readonly role: string;
  readonly output: string;
  readonly activation: string;
}

const ROWS: readonly UnitRow[] = [
  { kind: "ffn", role: "mlp.down", output: "act", activation: "act" },
  { kind: "mamba", role: "ssm.out", output: "g", activation: "x" },
  { kind: "attention", role: "attn.o", output: "a", activation: "a" },
];

/** The units of all main layers, and the scores that are not available. */
export function unitsOf(model: MatchedModel): {
  readonly units: readonly LayerUnits[];
  readonly unavailable: readonly Unavailable[];
} {
  const layers = mainLayers(model);
  const found = layers.map((layer) => layerUnits(model, layer));
  const units = found.flat();
  const numbers = (of: readonly Layer[]) => of.map(({ index }) => index);
  const without = layers.filter((_, i) => found[i]!.length === 0);
  const gated = units.filter(({ kind, preactivation }) => kind === "ffn" && preactivation === undefined);
  const rows: readonly Unavailable[] = [
    {
      layers: numbers(without),
      scores: ["ffn.*", "mamba.*", "attention.*"],
      why: "layers of routed experts, or of streams without known units, have layer scores only",
    },
    {
      layers: numbers(gated.map(({ layer }) => layer)),
      scores: ["ffn.preactivation"],
      why: "a gated MLP has two projections before its activation, and no single value",
    },
  ];
  return { units, unavailable: rows.filter((row) => row.layers.length > 0) };
}

function layerUnits(model: MatchedModel, layer: Layer): readonly LayerUnits[] {
  const { dims, family, roles } = model;
  const { forward } = family;
  const stages = forward.block(layer.kind, dims);
  if (stages.some(({ op }) => op === "experts")) return [];
  const [widths, blocks] = [forward.streams(dims), forward.blocks(dims)];
  return ROWS.flatMap(({ kind, role, output, activation }): LayerUnits[] => {
    const isStored = roles.has(roleKey(role, layer, null));
    const multiplied = stages.some((stage) => stage.op === "linear" && stage.from === output);
    if (!isStored || !multiplied) return [];
    const size = kind === "ffn" ? 1 : (blocks[output]?.count ?? 0);
    if (size === 0) return [];
    const before = kind === "ffn" ? preactivationOf(stages, output) : undefined;
    return [
      {
        ...{ layer, kind, size, output, activation, count: widths[output]! / size },
        ...(before !== undefined && { preactivation: before }),
      },
    ];
  });
}

/** The only stream that an activation reads. */
function preactivationOf(stages: readonly Stage[], activation: string): string | undefined {
  const stage = stages.find((one) => one.op === "kernel" && one.to === activation);
  return stage?.op === "kernel" && stage.from.length === 1 ? stage.from[0] : undefined;
}
