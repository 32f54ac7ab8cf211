/** Finds files in a Hugging Face folder that are not part of the model, by name: training state and other weights. */
import type { Sidecar, Surplus } from "../core/checkpoint.ts";
import { formatBytes, formatQuantity } from "../core/figures.ts";

const STATE = "training state";
const WEIGHTS = "weights that nothing names";
const COPIES = "notes that macOS keeps beside copied files";

/** Kind of a file by its path; the first match counts. */
const KINDS: readonly { readonly match: RegExp; readonly why: string }[] = [
  { match: /(^|\/)\._[^/]*$/, why: COPIES },
  { match: /(^|\/)(global_step\d+|checkpoint-\d+)\//, why: STATE },
  {
    match:
      /(^|\/)(optimizer|scheduler|rng_state|training_args|scaler|random_states)[^/]*\.(pt|pth|bin|pkl|safetensors)$/,
    why: STATE,
  },
  { match: /(^|\/)trainer_state\.json$/, why: STATE },
  { match: /\.(bin|pt|pth|ckpt|gguf|h5|msgpack|onnx|distcp|pdparams)$/i, why: WEIGHTS },
  { match: /\.(bin|h5|msgpack|safetensors)\.index\.json$/, why: WEIGHTS },
];

/** The index of the weights that are read; it is a side file. */
const INDEX = "model.safetensors.index.json";

/** Reason why a file is surplus; undefined for a file that a conversion copies. */
export function surplusKind(path: string, paths: ReadonlySet<string>): string | undefined {
  if (path === INDEX) return undefined;
  const folder = path.slice(0, path.lastIndexOf("/") + 1);
  if (folder !== "" && paths.has(`${folder}.metadata`)) return STATE; // a distributed checkpoint's own folder
  if (path === "latest" && [...paths].some((file) => /^global_step\d+\//.test(file))) return STATE;
  return KINDS.find(({ match }) => match.test(path))?.why;
}

/** A sentence about the files that are left out, and a sentence about the files that are copied on request. */
export function describeSurplus(surplus: readonly Surplus[], keepExtra: boolean): readonly string[] {
  const left = surplus.filter(({ rival }) => rival || !keepExtra);
  const copied = surplus.filter((file) => !left.includes(file));
  const rivals = left.filter(({ rival }) => rival);
  const copies = rivals.length === 0 ? "copies them too" : "copies all of them but the other set of weights";
  const way = rivals.length === left.length ? "" : `; \`keepExtra\` ${copies}`;
  return [
    ...(left.length === 0 ? [] : [`${describeFiles(left)}: left out${way}`]),
    ...(copied.length === 0 ? [] : [`${describeFiles(copied)}: copied too`]),
  ];
}

function describeFiles(files: readonly Surplus[]): string {
  const kinds = [...new Set(files.map(({ why }) => why))];
  const groups = kinds
    .map((why) => `${why}: ${placesOf(files.filter((file) => file.why === why))}`)
    .join("; ");
  return `${formatQuantity(files.length, "file")} of ${formatBytes(sizeOf(files))} beside the model (${groups})`;
}

const MOST_NAMED = 6;

/** Files and folders at the top with their sizes, sorted by size. */
function placesOf(files: readonly Sidecar[]): string {
  const places = [...new Set(files.map(topOf))].map((place) => ({
    place,
    size: sizeOf(files.filter((file) => topOf(file) === place)),
  }));
  const ordered = places.sort((a, b) => b.size - a.size || (a.place < b.place ? -1 : 1));
  const named = ordered.slice(0, MOST_NAMED).map(({ place, size }) => `${place} ${formatBytes(size)}`);
  const more = ordered.length - named.length;
  return named.join(", ") + (more > 0 ? ` and ${more} more` : "");
}

/** The folder at the top that contains a file, or the file itself. */
function topOf({ path }: Sidecar): string {
  return path.slice(0, path.indexOf("/") + 1) || path;
}

function sizeOf(files: readonly Sidecar[]): number {
  return files.reduce((sum, { span }) => sum + span.size, 0);
}
