/** Addresses near a checkpoint: a folder above the checkpoint, a part of a checkpoint, a folder of the Hub's cache. */
import { folderStore } from "../../../formats/folder-store.ts";
import type { Format } from "../../../formats/format.ts";
import { IsologitError } from "../../core/errors.ts";
import { readSmall, type Store } from "../../core/io.ts";
import { addressAbove, addressBelow, nameOf, shellWord } from "./address.ts";
import { HF_NAME, refuseNames } from "./distributed.ts";
import type { Scene } from "./scene.ts";

/** Folders that are tried, the shallowest first. */
const MAX_TRIED = 200;
const SHOWN = 3;
/** Files and folders that a checkpoint has at its top: their folder may be a checkpoint. */
const TOP =
  /^(.*\/)?(config\.json|[^/]+\.safetensors|model_config\.yaml|\.metadata|latest_checkpointed_iteration\.txt|context\/[^/]+|iter_\d+\/[^/]+|weights\/\.metadata|mp_rank_[\d_]+\/[^/]+|[^/]+\.(nemo|isologit))$/;

const FORMAT_OF_ENDING: Readonly<Record<string, string>> = {
  nemo: "nemo1",
  isologit: "packed",
  gguf: "gguf",
};

interface Found {
  /** path of the folder or file, without a slash at its end */
  readonly path: string;
  readonly format: string;
}

/** A run's folder, a folder of models, the Hub's cache: the checkpoint is further down. */
export async function checkpointBelow(
  scene: Scene,
  formats: readonly Format[],
): Promise<IsologitError | null> {
  if (scene.checkpoint !== undefined || scene.error.code !== "FORMAT_UNKNOWN") return null;
  if (scene.files.length === 1 && scene.files[0]!.path === nameOf(scene.address)) return null;
  const found = await below(scene, formats);
  const [first] = found;
  if (first === undefined) return null;
  const cache = await cachedRevision(scene, found);
  if (cache !== undefined) return cache;
  const weights = found.find(({ path, format }) => format === "bridge" && /(^|\/)weights$/.test(path));
  if (weights !== undefined && found.length === 1) return weightsAlone(scene, weights.path);
  const distributed =
    found.length === 1 && first.format === "bridge" ? await hfNamed(scene, first, formats) : undefined;
  if (distributed !== undefined) return distributed;
  const shown = found.slice(-SHOWN).map(({ path, format }) => `${path} (${format})`);
  const message =
    found.length === 1
      ? `this folder is not a checkpoint, but contains one: ${shown[0]}`
      : `this folder is not a checkpoint, but contains ${found.length}: ${found.length > SHOWN ? "…, " : ""}${shown.join(", ")}`;
  const target = addressBelow(scene.address, found.at(-1)!.path);
  const which = found.length === 1 ? "" : "one of them, the last is ";
  return new IsologitError("FORMAT_UNKNOWN", message, {}, { next: `give ${which}${shellWord(target)}` });
}

/** Outermost checkpoints below, those of a run in the order of their numbers. */
async function below({ files, store }: Scene, formats: readonly Format[]): Promise<readonly Found[]> {
  const folders = new Set<string>();
  for (const { path } of files) {
    const folder = TOP.exec(path)?.[1];
    const parts = (folder ?? "").split("/").filter(Boolean);
    // a marker may be a level or two below the top of its checkpoint: each folder on the way is tried.
    for (let depth = 1; depth <= parts.length; depth++) folders.add(`${parts.slice(0, depth).join("/")}/`);
  }
  const depthOf = (path: string) => path.split("/").length;
  const tried = [...folders].sort((a, b) => depthOf(a) - depthOf(b) || naturally(a, b)).slice(0, MAX_TRIED);
  const found: Found[] = [];
  for (const folder of tried) {
    if (found.some(({ path }) => folder.startsWith(`${path}/`))) continue;
    const format = await formatOf(folderStore(store, folder), formats);
    if (format !== undefined) found.push({ path: folder.slice(0, -1), format });
  }
  for (const { path } of files) {
    const [, ending] = /\.(nemo|isologit|gguf)$/.exec(path) ?? [];
    if (ending === undefined || found.length >= MAX_TRIED) continue;
    // The parts of a GGUF are read as a folder.
    const place = path.replace(/\/[^/]+-\d{5}-of-\d{5}\.gguf$/, "");
    if (found.some((other) => place === other.path || place.startsWith(`${other.path}/`))) continue;
    found.push({ path: place, format: FORMAT_OF_ENDING[ending]! });
  }
  return found.sort((a, b) => naturally(a.path, b.path));
}

const naturally = (a: string, b: string) => a.localeCompare(b, "en", { numeric: true });

async function formatOf(store: Store, formats: readonly Format[]): Promise<string | undefined> {
  for (const format of formats) if ((await format.detect(store)) === "yes") return format.id;
  return undefined;
}

/** `models--owner--name` of the Hub's cache: the revision that `main` names, else the only one. */
async function cachedRevision(
  { files, store, address }: Scene,
  found: readonly Found[],
): Promise<IsologitError | undefined> {
  const snapshots = found.filter(({ path }) => /^snapshots\/[0-9a-f]{40}$/.test(path));
  const [first] = snapshots;
  if (first === undefined) return undefined;
  const main = files.some(({ path }) => path === "refs/main")
    ? `snapshots/${Buffer.from(await readSmall(store, "refs/main", 64))
        .toString("latin1")
        .trim()}`
    : undefined;
  const chosen = snapshots.find(({ path }) => path === main) ?? first;
  const named = chosen.path === main ? "the revision main" : "a revision";
  const message = `this is a folder of the Hub's cache; ${named} is ${chosen.path}${snapshots.length > 1 ? `, one of ${snapshots.length}` : ""}`;
  return new IsologitError(
    "FORMAT_UNKNOWN",
    message,
    {},
    {
      next: `give ${shellWord(addressBelow(address, chosen.path))}`,
    },
  );
}

/** NeMo 2 has two folders: the config (`context/`) and the weights. */
function weightsAlone({ address }: Scene, path: string): IsologitError {
  const message = `${path}/ of a NeMo 2 checkpoint is here, but its context/ is missing: the architecture is not known`;
  const weights = shellWord(addressBelow(address, path));
  return new IsologitError(
    "FORMAT_UNKNOWN",
    message,
    {},
    {
      next: `copy context/ here too, or give ${weights} as the source and a checkpoint of the same architecture with \`like\``,
    },
  );
}

async function hfNamed({ store }: Scene, { path }: Found, formats: readonly Format[]) {
  const bridge = formats.find(({ id }) => id === "bridge");
  try {
    const read = await bridge?.read(folderStore(store, `${path}/`));
    const named = read?.tensors.find(({ name }) => HF_NAME.test(name));
    return named === undefined ? undefined : refuseNames(named.name, path);
  } catch {
    return undefined; // the error names it as a checkpoint below; opening it reports its faults
  }
}

/** Names inside checkpoints; the checkpoint is one or two folders above. */
const PARTS: readonly { readonly name: RegExp; readonly up: number; readonly what: string }[] = [
  { name: /^(mp_rank_[\d_]+|tp_rank_\d+_pp_rank_\d+)$/, up: 2, what: "the files of one rank" },
  { name: /^model_(optim_)?rng\.pt$/, up: 3, what: "the file of one rank" },
  { name: /^model_weights\.ckpt$/, up: 2, what: "the file of one rank" },
  { name: /^(iter_\d+|release)$/, up: 1, what: "one iteration of a run" },
  { name: /^(weights|context|model_weights)$/, up: 1, what: "a part of a checkpoint" },
  {
    name: /^(\.metadata|[^/]+\.distcp|common\.pt|metadata\.json|run_config\.yaml|model\.yaml|io\.json|train_state\.pt)$/,
    up: 2,
    what: "a file of a checkpoint",
  },
  {
    name: /^(config\.json|[^/]+\.safetensors|model\.safetensors\.index\.json|tokenizer(_config)?\.json|generation_config\.json|model_config\.yaml|latest_checkpointed_iteration\.txt)$/,
    up: 1,
    what: "a file of a checkpoint",
  },
];

/** @param open opens the store at an address; null if there is none */
export async function checkpointAbove(
  scene: Scene,
  formats: readonly Format[],
  open: (address: string) => Promise<Store | null>,
): Promise<IsologitError | null> {
  const { error } = scene;
  const unclear = ["FORMAT_UNKNOWN", "FAMILY_UNKNOWN", "CONFIG_INVALID", "NOT_FOUND"];
  if (!unclear.includes(error.code)) return null;
  const name = nameOf(scene.address);
  const part = PARTS.find((candidate) => candidate.name.test(name));
  if (part === undefined) return null;
  let above: string | undefined = scene.address;
  let outermost: { address: string; format: string } | undefined;
  for (let level = 0; level < part.up; level++) {
    above = addressAbove(above);
    if (above === undefined) break;
    const store = await open(above);
    const format = store === null ? undefined : await formatOf(store, formats);
    if (format === undefined && outermost !== undefined) break;
    if (format !== undefined) outermost = { address: above, format };
  }
  if (outermost === undefined) return null;
  const message = `this is ${part.what}; the checkpoint (${outermost.format}) is the folder ${outermost.address}`;
  return new IsologitError(
    "FORMAT_UNKNOWN",
    message,
    { file: scene.address },
    { next: `give ${shellWord(outermost.address)}` },
  );
}
