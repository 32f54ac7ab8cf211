/**
 * How Megatron stores a Mamba mixer. A distributed checkpoint has the rows of its fused tensors in named parts. A rank has its
 * share of each part, one after the other, which is not a share of the whole tensor.
 *
 * @see megatron/core/ssm/mamba_mixer.py
 */
import { concat, type Layout, slice } from "../../../core/mapping/layout.ts";
import type { Is, Rule, ShardPosition } from "../../dialect.ts";
import { inParts, type MambaDims } from "../mamba/dims.ts";
import { columns, is, rows } from "./cuts.ts";

/** Epsilon of the norm inside a mixer: a constant in mamba_mixer.py, independent of the config. */
export const MIXER_EPSILON = 1e-5;

/** Rows of the parts of the convolution, in their order. */
const convParts = (d: MambaDims) => ({ x: d.inner, B: d.groupState, C: d.groupState });

type Parts = (d: MambaDims) => Readonly<Record<string, number>>;

/** The fused tensors: name, role and parts. */
const FUSED: readonly (readonly [name: string, role: string, parts: Parts, names: readonly string[]])[] = [
  ["in_proj.weight", "ssm.in", inParts, ["z", "x", "B", "C", "dt"]],
  ["conv1d.weight", "ssm.conv", convParts, ["x", "B", "C"]],
  ["conv1d.bias", "ssm.conv.bias", convParts, ["x", "B", "C"]],
];

/** A rank's share of the rows of one part. */
function partOf(
  layout: Layout,
  parts: Readonly<Record<string, number>>,
  name: string,
  at: ShardPosition,
): Layout {
  let from = 0;
  for (const [key, size] of Object.entries(parts)) {
    if (key === name) return rows(slice(layout, 0, from, from + size), at);
    from += size;
  }
  return layout;
}

const fusedParts =
  <D extends MambaDims>(role: string, parts: Parts): Is<D> =>
  (of, d, at) => {
    const sizes = parts(d);
    return concat(
      0,
      Object.keys(sizes).map((name) => partOf(of(role), sizes, name, at)),
    );
  };

/**
 * Rules of the tensors that both dialects have.
 *
 * @param on     kinds of layers with a Mamba mixer
 * @param prefix name of the module, with its dot
 */
export function sharedMambaRules<D extends MambaDims>(
  on: readonly string[],
  prefix = "mixer.",
): readonly Rule<D>[] {
  const rule = (name: string, role: string, cut = rows): Rule<D> => ({
    ...{ name: prefix + name, on, is: is(role, cut) },
  });
  return [
    rule("A_log", "ssm.A_log"),
    rule("D", "ssm.D"),
    rule("dt_bias", "ssm.dt_bias"),
    rule("norm.weight", "ssm.norm"),
    rule("out_proj.weight", "ssm.out", columns),
  ];
}

/** Rules of the fused tensors in a distributed checkpoint. */
export const distMambaRules = <D extends MambaDims>(
  on: readonly string[],
  prefix = "mixer.",
): readonly Rule<D>[] =>
  FUSED.flatMap(([name, role, parts, names]) =>
    names.map(
      (part): Rule<D> => ({
        name: `${prefix}${name}.${part}`,
        on,
        is: (of, d, at) => partOf(of(role), parts(d), part, at),
      }),
    ),
  );

/** Rules of the fused tensors of a rank. Newer releases spell the convolution with underscores. */
export const rankMambaRules = <D extends MambaDims>(
  on: readonly string[],
  prefix = "mixer.",
): readonly Rule<D>[] =>
  FUSED.map(
    ([name, role, parts]): Rule<D> => ({
      name: prefix + name,
      ...(name.startsWith("conv1d.") && { also: [prefix + name.replace(".", "_")] }),
      on,
      is: fusedParts(role, parts),
    }),
  );
