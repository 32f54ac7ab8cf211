/** A placement of many files, put together piece by piece. */
import { CERTIFICATE_FILE, type Sidecar, type Span, tensorKey } from "../src/core/checkpoint.ts";
import { IsologitError } from "../src/core/errors.ts";
import { safePath } from "../src/core/safe-path.ts";
import type { Placement, WantedSidecar, WantedTensor } from "./format.ts";

export interface FolderPlan {
  /** A file of so many bytes. @throws PLAN_IMPOSSIBLE for a path that is taken, the certificate's too, PATH_UNSAFE */
  file(path: string, size: number): void;
  /** Bytes of a file that are known now. */
  inline(path: string, offset: number, bytes: Uint8Array): void;
  /** A file that is known now. */
  bytes(path: string, bytes: Uint8Array): void;
  /** A side file, new or copied, under a path of the destination. */
  sidecar(path: string, sidecar: WantedSidecar | Sidecar): void;
  /** Where a tensor starts. @throws DUPLICATE_NAME */
  tensor(tensor: WantedTensor, path: string, offset: number): void;
  /** A span that follows from hashes. */
  seal(span: Span): void;
  placed(): Placement;
}

export function folderPlan(): FolderPlan {
  const files: Placement["files"][number][] = [];
  const paths = new Set<string>([CERTIFICATE_FILE]); // written last, and never planned
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
        throw new IsologitError("DUPLICATE_NAME", "two tensors of one name are to be written", {
          tensor: name,
        });
      }
      names.add(name);
      tensors.push({ name, file, offset });
    },
    seal(span) {
      seals.push(span);
    },
    placed: () => ({ files, tensors, inline, copies, seals }),
  };
  return plan;
}

function foldersAbove(path: string): readonly string[] {
  const names = path.split("/").slice(0, -1);
  return names.map((_, i) => names.slice(0, i + 1).join("/"));
}
