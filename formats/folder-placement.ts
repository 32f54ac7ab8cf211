/** Builds the placement of a folder of files, step by step. */
import { CERTIFICATE_FILE, type Sidecar, type Span, tensorKey } from "../src/core/checkpoint.ts";
import { IsologitError } from "../src/core/errors.ts";
import { safePath } from "../src/core/safe-path.ts";
import type { Placement, WantedSidecar, WantedTensor } from "./format.ts";

export interface FolderPlan {
  /** Adds a file of this size. @throws PLAN_IMPOSSIBLE for a path in use, also by the certificate; PATH_UNSAFE */
  file(path: string, size: number): void;
  /** Adds bytes of a file that are known now. */
  inline(path: string, offset: number, bytes: Uint8Array): void;
  /** Adds a file whose content is known now. */
  bytes(path: string, bytes: Uint8Array): void;
  /** Adds a side file, new or copied, under a path of the destination. */
  sidecar(path: string, sidecar: WantedSidecar | Sidecar): void;
  /** Sets where a tensor starts. @throws DUPLICATE_NAME */
  tensor(tensor: WantedTensor, path: string, offset: number): void;
  /** Adds a span whose bytes follow from digests. */
  seal(span: Span): void;
  placement(): Placement;
}

export function folderPlan(): FolderPlan {
  const files: Placement["files"][number][] = [];
  const paths = new Set<string>([CERTIFICATE_FILE]); // written last, and not planned
  const folders = new Set<string>();
  const tensors: Placement["tensors"][number][] = [];
  const names = new Set<string>();
  const inline: Placement["inline"][number][] = [];
  const copies: Placement["copies"][number][] = [];
  const seals: Span[] = [];
  const plan: FolderPlan = {
    file(path, size) {
      if (paths.has(safePath(path, { file: path }))) {
        throw new IsologitError("PLAN_IMPOSSIBLE", "two files of the destination have this path", {
          file: path,
        });
      }
      const above = foldersAbove(path);
      if (folders.has(path) || above.some((folder) => paths.has(folder))) {
        throw new IsologitError("PLAN_IMPOSSIBLE", "a file and a folder of the destination have one path", {
          file: path,
        });
      }
      paths.add(path);
      for (const folder of above) folders.add(folder);
      files.push({ path, size });
    },
    inline(file, offset, bytes) {
      if (bytes.byteLength > 0) inline.push({ file, offset, bytes });
    },
    bytes(path, bytes) {
      plan.file(path, bytes.byteLength);
      plan.inline(path, 0, bytes);
    },
    sidecar(path, sidecar) {
      if ("bytes" in sidecar) return plan.bytes(path, sidecar.bytes);
      plan.file(path, sidecar.span.size);
      if (sidecar.span.size > 0) copies.push({ file: path, offset: 0, from: sidecar.span });
    },
    tensor(tensor, file, offset) {
      const name = tensorKey(tensor);
      if (names.has(name)) {
        throw new IsologitError("DUPLICATE_NAME", "two tensors to be written have one name", {
          tensor: name,
        });
      }
      names.add(name);
      tensors.push({ name, file, offset });
    },
    seal(span) {
      seals.push(span);
    },
    placement: () => ({ files, tensors, inline, copies, seals }),
  };
  return plan;
}

function foldersAbove(path: string): readonly string[] {
  const names = path.split("/").slice(0, -1);
  return names.map((_, i) => names.slice(0, i + 1).join("/"));
}
