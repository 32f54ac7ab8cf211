/** Files that were not fetched yet, and placeholders in their place. */
import { IsologitError } from "../../core/errors.ts";
import { readRange } from "../../core/io.ts";
import { isHubAddress } from "../../io/address.ts";
import { addressAbove, shellWord } from "./address.ts";
import { CONTENT_NAMES, type FileContent, MAX_POINTER_BYTES } from "./content.ts";
import type { Scene, SceneFile } from "./scene.ts";

/** Names of files that hold weights. */
export const WEIGHTS = /(\.(safetensors|bin|pt|pth|ckpt|distcp|nemo|isologit|gguf)|(^|\/)\.metadata)$/i;
/** Largest number of files whose first bytes are read. */
const MAX_LOOKED_AT = 1000;
const QUOTED_BYTES = 80;
const PAGE_NEXT =
  "fetch the file again; `isologit download OWNER/NAME` does not save a web page as a file (a private repository needs HF_TOKEN or `token`)";

/** In a clone without git-lfs, every large file is a pointer of some 130 bytes. */
export async function lfsPointers(scene: Scene): Promise<IsologitError | null> {
  const small = scene.files.filter(({ size }) => size < MAX_POINTER_BYTES).slice(0, MAX_LOOKED_AT);
  const pointers = await having(scene, small, (content) => content === "lfs-pointer");
  // A checkpoint that was opened has its weights: only the file at fault can be a pointer then.
  const concerns = ({ path }: SceneFile) =>
    (scene.checkpoint === undefined && WEIGHTS.test(path)) || path === scene.error.at.file;
  const first = pointers.find(concerns);
  if (first === undefined) return null;
  const weights = scene.files.filter(({ path }) => WEIGHTS.test(path));
  const ofWeights = pointers.filter(({ path }) => WEIGHTS.test(path)).length;
  const others = pointers.length - ofWeights;
  const counts = [
    ...(ofWeights > 0 ? [`${ofWeights} of ${weights.length} weight files`] : []),
    ...(others > 0 ? [`${others} other ${others === 1 ? "file" : "files"}`] : []),
  ];
  const message = `this is a Git LFS pointer, a text of ${first.size} bytes in place of the file; pointers here: ${counts.join(", ")}`;
  const next = `run \`git -C ${shellWord(folderOf(scene))} lfs pull\` (with git-lfs installed), which fetches the files`;
  return new IsologitError("NOT_FETCHED", message, { file: first.path }, { next });
}

/** An error page that was saved as the file, an empty file, or allocated space without data. */
export async function standIns(scene: Scene): Promise<IsologitError | null> {
  const { error, files } = scene;
  const failed = files.filter(({ path }) => path === error.at.file);
  const any = scene.checkpoint === undefined ? files.filter(({ path }) => WEIGHTS.test(path)) : [];
  const looked = (failed.length > 0 ? failed : any).slice(0, MAX_LOOKED_AT);
  for (const file of looked) {
    const content = await scene.contentOf(file.path);
    if (!isStandIn(content, file.path)) continue;
    const weights = files.filter(({ path }) => WEIGHTS.test(path)).slice(0, MAX_LOOKED_AT);
    const alike = await having(scene, weights, (other) => other === content);
    const count =
      alike.length > 1 ? `; the same is true of ${alike.length} of ${weights.length} weight files here` : "";
    const shown = content === "zeros" || content === "empty" ? "" : `: ${await beginningOf(scene, file)}`;
    const what =
      content === "zeros"
        ? "the file begins with 512 zero bytes in place of its header: space was allocated and never written"
        : `this is ${CONTENT_NAMES[content]}${shown}`;
    const next = content === "web-page" || content === "json" || content === "xml" ? PAGE_NEXT : undefined;
    const options = next === undefined ? {} : { next };
    return new IsologitError("NOT_FETCHED", `${what}${count}`, { file: file.path }, options);
  }
  return null;
}

function isStandIn(content: FileContent, path: string): boolean {
  if (content === "web-page" || content === "empty" || content === "zeros") return true;
  return (content === "xml" || content === "json" || content === "text") && WEIGHTS.test(path);
}

async function beginningOf({ store }: Scene, { path, size }: SceneFile): Promise<string> {
  await using source = await store.open(path);
  const start = Buffer.from(await readRange(source, 0, Math.min(size, QUOTED_BYTES))).toString("utf8");
  return JSON.stringify(start.replace(/\s+/g, " ").trim());
}

async function having(scene: Scene, files: readonly SceneFile[], wanted: (content: FileContent) => boolean) {
  const found: SceneFile[] = [];
  for (const file of files) if (wanted(await scene.contentOf(file.path))) found.push(file);
  return found;
}

/** The folder of a file that was given alone. */
function folderOf({ address, files, store }: Scene): string {
  const alone = files.length === 1 && !isHubAddress(address) && store.url.endsWith(files[0]!.path);
  return alone ? (addressAbove(address) ?? address) : address;
}
