/** Reads an archive or a folder of NeMo 1: its config, its weights, and the files of its tokenizer. */
import type { Checkpoint, Sidecar } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { readSmall, type Store } from "../../src/core/io.ts";
import { tarStore } from "../codec/tar/read.ts";
import { nameSeals } from "../codec/torch-zip/read.ts";
import { type ConfigRecord, MAX_YAML_BYTES, parseYaml } from "../codec/yaml.ts";
import { folderStore } from "../folder-store.ts";
import { foundIn, moduleOf, readArchives } from "../megatron/modules.ts";
import { ranksOf } from "../megatron/ranks.ts";
import { readWeights } from "../torch-dist/weights.ts";
import { CONFIG, FOLDER, type Nemo1Weights, weightsAmong } from "./files.ts";

/** prefix of every name; a model that was wrapped for half precision has `module.` too */
const PREFIX = /^model\.(module\.)?/;
/** Files that the config refers to have a hash before their name, so that all names differ. */
const ARTIFACT = /^[0-9a-f]{32}_(.+)$/;

/** @throws codes of exit status 3 */
export async function readNemo1(store: Store): Promise<Checkpoint> {
  const [only, ...more] = await store.list();
  const isArchive = only !== undefined && more.length === 0;
  const inside = isArchive ? await insideOf(await tarStore(store, only.path)) : store;
  const files = await inside.list();
  const paths = files.map(({ path }) => path);
  const weights = weightsAmong(paths);
  if (!paths.includes(CONFIG) || weights === undefined) {
    throw new IsologitError("FORMAT_UNKNOWN", `there is no ${CONFIG} with weights of NeMo 1 here`, {
      file: store.url,
    });
  }
  const at = { file: CONFIG };
  const config = resolveReferences(parseYaml(await readSmall(inside, CONFIG, MAX_YAML_BYTES), at));
  return {
    format: "nemo1",
    config,
    ...(await modelOf(inside, weights, config)),
    sidecars: artifactsIn(files),
    weightFiles: [],
    recasts: [],
  };
}

/** The content of an archive; `tar cf m.nemo folder` puts it into a folder. */
async function insideOf(archive: Store): Promise<Store> {
  const paths = (await archive.list()).map(({ path }) => path);
  if (paths.includes(CONFIG)) return archive;
  const folders = paths.flatMap((path) => (path.endsWith(`/${CONFIG}`) ? path.slice(0, -CONFIG.length) : []));
  const [folder, ...more] = folders;
  return folder !== undefined && more.length === 0 ? folderStore(archive, folder) : archive;
}

async function modelOf(
  store: Store,
  weights: Nemo1Weights,
  config: ConfigRecord,
): Promise<
  Pick<Checkpoint, "dialect" | "tensors" | "objects" | "moduleStates" | "remarks" | "seals" | "store">
> {
  if (weights === "distributed") {
    const { tensors, objects, moduleStates, seals } = await readWeights(store, FOLDER);
    return { dialect: "megatron", tensors, objects, moduleStates, seals, store };
  }
  const archives = await readArchives(store, weights);
  const { ranks } = ranksOf(weights, config);
  const modules = archives.map((archive, i) => moduleOf(archive, archive.value, ranks[i]!, PREFIX));
  const tensors = modules.flatMap(({ tensors }) => tensors);
  return {
    dialect: "megatron-ranks",
    tensors,
    seals: nameSeals(
      archives.flatMap(({ seals }) => seals),
      tensors,
    ),
    objects: [...new Set(modules.flatMap(({ objects }) => objects))].sort(),
    ...foundIn(modules, store),
  };
}

/** Side files with the names that they had before NeMo packed them. Of two files with one name, the second keeps its hash. */
function artifactsIn(files: readonly { readonly path: string; readonly size: number }[]): Sidecar[] {
  const taken = new Set<string>();
  return files.flatMap(({ path, size }) => {
    const name = ARTIFACT.exec(path)?.[1];
    if (name === undefined) return [];
    const own = taken.has(name) ? path : name;
    taken.add(own);
    return [{ path: own, span: { file: path, offset: 0, size } }];
  });
}

/** Replaces `${.name}`, OmegaConf's reference to the value of a key beside it. */
function resolveReferences(config: ConfigRecord): ConfigRecord {
  return Object.fromEntries(
    Object.entries(config).map(([key, value]) => {
      const name = typeof value === "string" ? /^\$\{\.?(\w+)\}$/.exec(value)?.[1] : undefined;
      return [key, name !== undefined && Object.hasOwn(config, name) ? config[name] : value];
    }),
  );
}
