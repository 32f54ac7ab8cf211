import { type ErrorCode, IsologitError } from "../../src/core/errors.ts";

/** The code that `work` fails with; whatever else it throws is thrown on. */
export async function codeOf(work: () => unknown): Promise<ErrorCode | "no error"> {
  try {
    await work();
    return "no error";
  } catch (error) {
    if (error instanceof IsologitError) return error.code;
    throw error;
  }
}

/** The failure of `work`, whole. */
export async function errorOf(work: () => Promise<unknown>): Promise<IsologitError> {
  try {
    await work();
  } catch (error) {
    if (error instanceof IsologitError) return error;
    throw error;
  }
  throw new Error("nothing failed");
}
