/** Tokens dealt out to the experts that they chose: the rows of dealt streams, expert after expert. */
import type { Backend, Region } from "../../kernels/kernel.ts";
import type { ExpertChoice } from "../families/forward.ts";

/** Rows [from, from + count) are one expert's. */
export interface ExpertRun {
  readonly expert: number;
  readonly from: number;
  readonly count: number;
}

/** What a side needs to know of it; of `experts` those whose rows are not wanted may be left out. */
export type DispatchedRows = Pick<ExpertRows, "rows" | "perToken" | "experts" | "tokenOf" | "ones" | "rowOf">;

export class ExpertRows {
  readonly #backend: Backend;
  readonly rows: number;
  readonly perToken: number;
  /** in the order of experts; one that has no row is left out */
  readonly experts: readonly ExpertRun[];
  /** [rows] the token of each row, a whole number in F32 */
  readonly tokenOf: Region;
  /** [rows] ones */
  readonly ones: Region;
  /** [tokens, perToken] the row of each choice */
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
   * @param chosen [tokens, perToken] experts, whole numbers
   * @param each   every expert gets one row more, which no token collects: none goes unread, and the number of rows
   *               does not depend on the choice
   */
  static async of(
    backend: Backend,
    chosen: Float32Array,
    tokens: number,
    { experts, perToken }: ExpertChoice,
    each: boolean,
  ): Promise<ExpertRows> {
    const choices: number[][] = Array.from({ length: experts }, () => []);
    // `| 0`: a backend that only counts shows one number for all of them
    for (let i = 0; i < tokens * perToken; i++) choices[chosen[i]! | 0]!.push(i);
    const rowOf = new Float32Array(tokens * perToken);
    const tokenOf: number[] = [];
    const runs: ExpertRun[] = [];
    for (const [expert, mine] of choices.entries()) {
      const from = tokenOf.length;
      for (const choice of mine) {
        rowOf[choice] = tokenOf.length;
        tokenOf.push(Math.floor(choice / perToken));
      }
      if (each) tokenOf.push(expert % tokens);
      if (tokenOf.length > from) runs.push({ expert, from, count: tokenOf.length - from });
    }
    return new ExpertRows(backend, perToken, runs, {
      tokenOf: await uploaded(backend, Float32Array.from(tokenOf)),
      ones: await uploaded(backend, new Float32Array(tokenOf.length).fill(1)),
      rowOf: await uploaded(backend, rowOf),
    });
  }

  /** The same rows, of which a run computes only those of some experts. */
  only(experts: readonly number[]): DispatchedRows {
    const { rows, perToken, tokenOf, ones, rowOf } = this;
    const wanted = this.experts.filter(({ expert }) => experts.includes(expert));
    return { rows, perToken, tokenOf, ones, rowOf, experts: wanted };
  }

  release(): void {
    for (const region of [this.tokenOf, this.ones, this.rowOf]) this.#backend.release(region);
  }
}

async function uploaded(backend: Backend, values: Float32Array): Promise<Region> {
  const region = backend.allocate(values.byteLength);
  await backend.upload(region, values.byteLength, (view) => view.set(new Uint8Array(values.buffer)));
  return region;
}
