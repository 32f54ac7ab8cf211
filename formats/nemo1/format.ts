/**
 * A NeMo 1 archive: a tar with `model_config.yaml`, the files of the tokenizer, and weights in any of the forms that NeMo 1
 * used. The unpacked folder is read too. The format is not written, because no newer software loads it.
 */
import type { Checkpoint, Sidecar } from "../../src/core/checkpoint.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { readRange, readSmall, type Store } from "../../src/core/io.ts";
import { tarStore } from "../codec/tar/read.ts";
import { nameSeals } from "../codec/torch-zip/read.ts";
import { type ConfigRecord, MAX_YAML_BYTES, parseYaml } from "../codec/yaml.ts";
import { folderStore } from "../folder-store.ts";
import type { Format } from "../format.ts";
import { foundIn, moduleOf, readArchives } from "../megatron/modules.ts";
import { ranksOf } from "../megatron/ranks.ts";
import { DIST_MARKER, readWeights } from "../torch-dist/weights.ts";

const CONFIG = "model_config.yaml";
const SINGLE = "model_weights.ckpt";
const FOLDER = "model_weights/";
const RANKED = /^(mp_rank_\d+|tp_rank_\d+_pp_rank_\d+)\/model_weights\.ckpt$/;
/** prefix of every name; a model that was wrapped for half precision has `module.` too */
const PREFIX = /^model\.(module\.)?/;
/** Files that the config refers to have a hash before their name, so that all names differ. */
const ARTIFACT = /^[0-9a-f]{32}_(.+)$/;
/** the mark of POSIX and GNU headers */
const MAGIC = { offset: 257, text: "ustar" };

export const nemo1: Format = {
  id: "nemo1",
  title: "NeMo 1 archive (.nemo)",

  async detect(store) {
    const files = await store.list();
    const paths = files.map(({ path }) => path);
    if (paths.includes(CONFIG)) return weightsAmong(paths) === undefined ? "no" : "yes";
    const [only, ...more] = files;
    if (only === undefined || more.length > 0 || only.size < 512) return "no";
    await using source = await store.open(only.path);
    const magic = await readRange(source, MAGIC.offset, MAGIC.text.length);
    return Buffer.from(magic).toString("latin1") === MAGIC.text ? "yes" : "no";
  },

  async read(store): Promise<Checkpoint> {
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
  },
};

/** The content of an archive; `tar cf m.nemo folder` puts it into a folder. */
async function insideOf(archive: Store): Promise<Store> {
  const paths = (await archive.list()).map(({ path }) => path);
  if (paths.includes(CONFIG)) return archive;
  const folders = paths.flatMap((path) => (path.endsWith(`/${CONFIG}`) ? path.slice(0, -CONFIG.length) : []));
  const [folder, ...more] = folders;
  return folder !== undefined && more.length === 0 ? folderStore(archive, folder) : archive;
}

type Weights = "distributed" | readonly string[];

/** The weights: files of ranks, or one file for a model that was not cut; undefined if there are none. */
function weightsAmong(paths: readonly string[]): Weights | undefined {
  if (paths.includes(SINGLE)) return [SINGLE];
  if (paths.some((path) => path.startsWith(FOLDER) && DIST_MARKER.test(path.slice(FOLDER.length)))) {
    return "distributed";
  }
  const ranked = paths.filter((path) => RANKED.test(path));
  return ranked.length > 0 ? ranked : undefined;
}

async function modelOf(
  store: Store,
  weights: Weights,
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
