/** How Megatron divides a model among ranks: read from a stored checkpoint, or planned for a new one. */
import { type ErrorCode, IsologitError } from "../../../core/errors.ts";
import type { ObservedFacts } from "../../dialect.ts";
import type { Config, Dims, Layer, Parallelism, Structure } from "../../structure.ts";

/** Padding makes the token table a multiple of this many rows for each tensor parallel rank. */
export const VOCAB_STEP = 128;

/** What must divide evenly among tensor parallel ranks, or among the parts of an expert's matrices. */
export interface CutSize {
  readonly what: string;
  readonly size: number;
  readonly parts: "tp" | "expertTp";
}

/** What the division of a family depends on. */
type CutSizes<D extends Dims> = (model: Structure<D>) => readonly CutSize[];

/** Number of tensor parallel ranks among the stored tensors. */
export function partsOf({ tensors }: ObservedFacts): number {
  return tensors.reduce((most, { rank }) => Math.max(most, (rank?.tp ?? 0) + 1), 1);
}

const layerCounts = ({ layers }: Structure) => {
  const main = layers.filter(({ stack }) => stack === "main").length;
  return { main, mtp: layers.length - main };
};

/** Layers to which the names of a stack give one number. */
const blockSize = ({ layers }: Structure, stack: Layer["stack"]): number =>
  layers.find((layer) => layer.stack === stack)?.of ?? 1;

/** A distributed checkpoint holds whole tensors. Of the ranks that wrote it, only the padding is visible. */
export function distParallelism(facts: ObservedFacts, model: Structure): Parallelism {
  return { tp: 1, ep: 1, expertTp: 1, stages: [layerCounts(model)], rows: rowsOf(facts, model, 1) };
}

/**
 * @param moeFfn inner width of an expert; 0: the model has none
 * @throws TENSOR_MISSING if layers are missing from the stages; UNSUPPORTED if widths do not divide evenly
 */
export function rankParallelism<D extends Dims>(
  facts: ObservedFacts,
  model: Structure<D>,
  config: Config,
  { sizes, moeFfn }: { readonly sizes: CutSizes<D>; readonly moeFfn: number },
): Parallelism {
  const tp = partsOf(facts);
  const most = (of: "pp" | "ep") =>
    facts.tensors.reduce((max, { rank }) => Math.max(max, (rank?.[of] ?? 0) + 1), 1);
  const inBlock = { main: blockSize(model, "main"), mtp: blockSize(model, "mtp") };
  const stages = Array.from({ length: most("pp") }, () => ({ main: 0, mtp: 0 }));
  for (const { name, rank } of facts.tensors) {
    const [, stack, index] = /^(decoder|mtp)\.layers\.(\d+)\./.exec(name) ?? [];
    const stage = stages[rank?.pp ?? 0]!;
    if (stack === "decoder") stage.main = Math.max(stage.main, (Number(index) + 1) * inBlock.main);
    if (stack === "mtp") stage.mtp = Math.max(stage.mtp, (Number(index) + 1) * inBlock.mtp);
  }
  const { main } = layerCounts(model);
  const found = stages.reduce((sum, stage) => sum + stage.main, 0);
  if (found !== main) {
    const blocks = (layers: number) => layers / inBlock.main;
    const message = `the ${stages.length} pipeline stages hold ${blocks(found)} layers; the config asks for ${blocks(main)}`;
    throw new IsologitError("TENSOR_MISSING", message);
  }
  const expertTp = expertParts(facts, moeFfn, config, tp);
  refuseUncut("UNSUPPORTED", sizes(model), { tp, expertTp });
  return { tp, ep: most("ep"), expertTp, stages, rows: rowsOf(facts, model, tp) };
}

/** @throws PLAN_IMPOSSIBLE */
export function planParallelism<D extends Dims>(
  model: Structure<D>,
  { tp, pp }: { readonly tp: number; readonly pp: number },
  ranked: boolean,
  { sizes, moeFfn }: { readonly sizes: CutSizes<D>; readonly moeFfn: number },
): Parallelism {
  const step = VOCAB_STEP * tp;
  const rows = Math.ceil(model.dims.vocab / step) * step;
  const { main, mtp } = layerCounts(model);
  if (!ranked) return { tp, ep: 1, expertTp: 1, stages: [{ main, mtp }], rows };
  refuseUncut("PLAN_IMPOSSIBLE", sizes(model), { tp, expertTp: tp });
  const inBlock = blockSize(model, "main");
  const blocks = main / inBlock;
  if (pp > blocks)
    throw new IsologitError("PLAN_IMPOSSIBLE", `${blocks} layers cannot fill ${pp} pipeline stages`);
  const stages = Array.from({ length: pp }, (_, stage) => ({
    main: inBlock * (Math.floor(((stage + 1) * blocks) / pp) - Math.floor((stage * blocks) / pp)),
    mtp: stage === pp - 1 ? mtp : 0,
  }));
  return { tp, ep: 1, expertTp: moeFfn > 0 ? tp : 1, stages, rows };
}

/** One of the two is enough to show the padding; `matchRoles` reports the other if it is missing. */
const TABLES = ["embedding.word_embeddings.weight", "output_layer.weight"];

/** Rows of the token table over all ranks. @throws SHAPE_MISMATCH where they are fewer than the vocabulary */
function rowsOf({ tensors }: ObservedFacts, { dims }: Structure, tp: number): number {
  const table = TABLES.map((table) => tensors.find(({ name }) => name === table)).find(
    (tensor) => tensor !== undefined,
  );
  if (table === undefined) return dims.vocab;
  const rows = (table.shape[0] ?? 0) * tp;
  if (rows >= dims.vocab) return rows;
  throw new IsologitError("SHAPE_MISMATCH", `it has ${rows} rows; the vocabulary has ${dims.vocab}`, {
    tensor: table.name,
  });
}

/** Number of ranks that share the matrices of an expert: from the config, else from the stored shapes. */
function expertParts({ tensors }: ObservedFacts, moeFfn: number, config: Config, tp: number): number {
  const configured = config.expert_tensor_parallel_size;
  const down = tensors.find(({ name }) => /\.mlp\.experts\.(.*\.)?linear_fc2\.weight\d*$/.test(name));
  if (down === undefined || down.shape[1] === moeFfn) return 1;
  return typeof configured === "number" && configured > 0 ? configured : tp;
}

/** Checks the sizes that must divide evenly among tensor parallel ranks. */
function refuseUncut(
  code: ErrorCode,
  sizes: readonly CutSize[],
  ranks: { readonly tp: number; readonly expertTp: number },
): void {
  for (const { what, size, parts } of sizes) {
    if (size % ranks[parts] === 0) continue;
    const message = `${size} ${what} cannot be divided among ${ranks[parts]} tensor parallel ranks`;
    if (code !== "PLAN_IMPOSSIBLE") throw new IsologitError(code, message);
    const fitting = Array.from({ length: ranks.tp - 1 }, (_, i) => i + 1).filter((tp) =>
      sizes.every((cut) => cut.size % tp === 0),
    );
    throw new IsologitError(code, message, {}, { next: `use \`tp\` ${fitting.join(" or ")}` });
  }
}
