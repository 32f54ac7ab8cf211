/** Staged files that change during verification are verified again, or refused: what is published must be what was verified. */

import type { Placement } from "../../formats/format.ts";
import { IsologitError } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import { fileStore } from "../io/file.ts";
import { stagingChangedError } from "../io/staged-files.ts";
import type { Staging } from "../io/staging.ts";
import { filesThatDiffer, type OutsideSpan } from "./outside-elements.ts";

interface StagedDestination {
  readonly staging: Staging;
  /** all planned files */
  readonly files: Placement["files"];
  readonly outside: readonly OutsideSpan[];
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

/** Largest number of verifications, if another process changes the staged files each time. */
const MAX_PROOFS = 3;

/**
 * Runs `prove` on staged files that do not change meanwhile, and whose bytes beside the tensors are those that were
 * written.
 *
 * @throws STAGING_CHANGED, and whatever `prove` throws
 */
export async function verifyStaged<T>(staged: StagedDestination, prove: () => Promise<T>): Promise<T> {
  const { staging, watch } = staged;
  for (let proofs = 1; ; proofs++) {
    await watchStaged(staged);
    try {
      return await withUnchangedFiles(staging, async () => {
        await refuseOtherBytes(staged);
        return await prove();
      });
    } catch (error) {
      const isOurs = error instanceof IsologitError && error.code === "STAGING_CHANGED";
      if (!isOurs || proofs === MAX_PROOFS || (await staging.changes()).length === 0) throw error;
      watch({ type: "warning", message: `${error.message}: the staged files are verified again` });
    }
  }
}

/** Remembers the state of the staged files: later changes are not published. */
export async function watchStaged({
  staging,
  files,
  watch,
}: Omit<StagedDestination, "outside" | "signal">): Promise<void> {
  for (const path of await staging.watchFiles(files)) {
    watch({
      type: "warning",
      message: `${path} is not planned, but among the staged files: it is removed`,
    });
  }
}

/**
 * Runs `work`, during which no staged file may change. If one changes, that is the error, even if `work` fails too: the
 * change may be the cause.
 *
 * @throws STAGING_CHANGED, and whatever `work` throws
 */
export async function withUnchangedFiles<T>(staging: Staging, work: () => Promise<T>): Promise<T> {
  const [outcome] = await Promise.allSettled([work()]);
  const paths = await staging.changes();
  if (paths.length > 0)
    throw stagingChangedError(paths, outcome.status === "rejected" ? outcome.reason : undefined);
  if (outcome.status === "rejected") throw outcome.reason;
  return outcome.value;
}

async function refuseOtherBytes({ staging, outside, signal }: StagedDestination): Promise<void> {
  const store = await fileStore(staging.content);
  const [only] = await store.list();
  const spans = outside.map((span) => (span.file === "" ? { ...span, file: only!.path } : span));
  const differing = await filesThatDiffer(store, spans, signal);
  if (differing.length > 0) throw stagingChangedError(differing);
}
