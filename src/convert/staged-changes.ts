/** What is verified must be what appears: a staged file that changes meanwhile is verified again, or refused. */

import type { Placement } from "../../formats/format.ts";
import { IsologitError } from "../core/errors.ts";
import type { Watch } from "../core/events.ts";
import { fileStore } from "../io/file.ts";
import { type Staging, stagedChange } from "../io/staging.ts";
import { filesThatDiffer, type OutsideSpan } from "./outside-elements.ts";

interface StagedDestination {
  readonly staging: Staging;
  /** all that are planned */
  readonly files: Placement["files"];
  readonly beside: readonly OutsideSpan[];
  readonly watch: Watch;
  readonly signal: AbortSignal | undefined;
}

/** How often staged files are verified before a run gives up on whoever changes them. */
const MAX_PROOFS = 3;

/**
 * What `prove` finds of staged files that stay as they are all the while, and that hold beside their tensors what was
 * written.
 *
 * @throws STAGING_CHANGED, and whatever `prove` throws
 */
export async function proveStaged<T>(staged: StagedDestination, prove: () => Promise<T>): Promise<T> {
  const { staging, watch } = staged;
  for (let proofs = 1; ; proofs++) {
    await watchStaged(staged);
    try {
      return await holdStill(staging, async () => {
        await refuseOtherBytes(staged);
        return await prove();
      });
    } catch (error) {
      const isOurs = error instanceof IsologitError && error.code === "STAGING_CHANGED";
      if (!isOurs || proofs === MAX_PROOFS || (await staging.changes()).length === 0) throw error;
      watch({ type: "warning", message: `${error.message}: it is verified again` });
    }
  }
}

/** From here on the staged files are known: what changes later does not appear. */
export async function watchStaged({
  staging,
  files,
  watch,
}: Omit<StagedDestination, "beside" | "signal">): Promise<void> {
  for (const path of await staging.watchFiles(files)) {
    watch({
      type: "warning",
      message: `${path} is in no plan, but among the staged files: it is removed`,
    });
  }
}

/**
 * What `work` gives, where no staged file has changed meanwhile. A fault of `work` may be what the change has caused.
 *
 * @throws STAGING_CHANGED, and whatever `work` throws
 */
export async function holdStill<T>(staging: Staging, work: () => Promise<T>): Promise<T> {
  const [outcome] = await Promise.allSettled([work()]);
  const paths = await staging.changes();
  if (paths.length > 0) throw stagedChange(paths, outcome.status === "rejected" ? outcome.reason : undefined);
  if (outcome.status === "rejected") throw outcome.reason;
  return outcome.value;
}

async function refuseOtherBytes({ staging, beside, signal }: StagedDestination): Promise<void> {
  const store = await fileStore(staging.content);
  const [only] = await store.list();
  const named = beside.map((span) => (span.file === "" ? { ...span, file: only!.path } : span));
  const differing = await filesThatDiffer(store, named, signal);
  if (differing.length > 0) throw stagedChange(differing);
}
