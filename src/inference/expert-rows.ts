/** MoE dispatch: which rows of a dispatched stream belong to which expert. Rows are ordered by expert. */
import type { Backend, Region } from "../../kernels/kernel.ts";
import type { ExpertChoice } from "../families/forward.ts";

/** Rows [from, from + count) belong to this expert. */
export interface ExpertRun {
  readonly expert: number;
  readonly from: number;
  readonly count: number;
}

/** The part of `ExpertRows` that a model runner needs. `experts` may omit experts whose rows are not computed. */
export type DispatchedRows = Pick<ExpertRows, "rows" | "perToken" | "experts" | "tokenOf" | "ones" | "rowOf">;

export class ExpertRows {
  readonly #backend: Backend;
  readonly rows: number;
  readonly perToken: number;
  /** ordered by expert; an expert without rows is omitted */
  readonly experts: readonly ExpertRun[];
  /** [rows] the token of each row: an integer stored as F32 */
  readonly tokenOf: Region;
  /** [rows] all 1 */
  readonly ones: Region;
  /** [tokens, perToken] the row that computes each choice */
  readonly rowOf: Region;

  private constructor(
    backend: Backend,
    perToken: number,
    experts: readonly ExpertRun[],
    regions: { readonly tokenOf: Region; readonly ones: Region; readonly rowOf: Region },
  ) {
    this.#backend = backend;
    this.perToken = perToken;
    this.experts = experts;
    this.rows = experts.reduce((sum, { count }) => sum + count, 0);
    this.tokenOf = regions.tokenOf;
    this.ones = regions.ones;
    this.rowOf = regions.rowOf;
  }

  /**
   * Uploads the tables that dispatch and combine need.
   *
   * @param chosen [tokens, perToken] expert numbers, integers stored as F32
   * @param each   gives every expert one extra row, which `combine` does not use: every expert is then read, and the
   *               number of rows does not depend on the choice
   */
  static async of(
    backend: Backend,
    chosen: Float32Array,
    tokens: number,
    { experts, perToken }: ExpertChoice,
    each: boolean,
  ): Promise<ExpertRows> {
    const choices: number[][] = Array.from({ length: experts }, () => []);
    // `| 0` turns NaN into 0: a backend that only measures memory returns arbitrary values
    for (let i = 0; i < tokens * perToken; i++) choices[chosen[i]! | 0]!.push(i);
    const rowOf = new Float32Array(tokens * perToken);
    const tokenOf: number[] = [];
    const runs: ExpertRun[] = [];
    for (const [expert, ofExpert] of choices.entries()) {
      const from = tokenOf.length;
      for (const choice of ofExpert) {
        rowOf[choice] = tokenOf.length;
        tokenOf.push(Math.floor(choice / perToken));
      }
      if (each) tokenOf.push(expert % tokens);
      if (tokenOf.length > from) runs.push({ expert, from, count: tokenOf.length - from });
    }
    return new ExpertRows(backend, perToken, runs, {
      tokenOf: await upload(backend, Float32Array.from(tokenOf)),
      ones: await upload(backend, new Float32Array(tokenOf.length).fill(1)),
      rowOf: await upload(backend, rowOf),
    });
  }

  /** The same rows, limited to those of the given experts: a run computes only these. */
  only(experts: readonly number[]): DispatchedRows {
    const { rows, perToken, tokenOf, ones, rowOf } = this;
    const wanted = this.experts.filter(({ expert }) => experts.includes(expert));
    return { rows, perToken, tokenOf, ones, rowOf, experts: wanted };
  }

  release(): void {
    for (const region of [this.tokenOf, this.ones, this.rowOf]) this.#backend.release(region);
  }
}

async function upload(backend: Backend, values: Float32Array): Promise<Region> {
  const region = backend.allocate(values.byteLength);
  await backend.upload(region, values.byteLength, (view) => view.set(new Uint8Array(values.buffer)));
  return region;
}
