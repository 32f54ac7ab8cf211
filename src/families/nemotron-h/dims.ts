/** Widths and constants of a Nemotron-H model, computed from its settings. */
import { IsologitError } from "../../core/errors.ts";
import { type MambaDims, mambaWidths } from "../parts/mamba/dims.ts";
import type { Settings } from "../structure.ts";

/** A width is 0 where no layer of the model uses it. */
export interface NemotronHDims extends MambaDims {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** heads * headDim */
  readonly q: number;
  /** kvHeads * headDim */
  readonly kv: number;
  readonly ffn: number;
  readonly experts: number;
  readonly moeFfn: number;
  readonly moeShared: number;
  /** width of the projection before and after the routed experts; 0: there is no such projection */
  readonly latent: number;
  readonly topK: number;
  readonly routeGroups: number;
  readonly routeTopGroups: number;
  /** 1: the weights of the chosen experts are divided by their sum */
  readonly routeNormalise: number;
  readonly routeScale: number;
  /** width of the input of a routed expert, and of its output: they are equal */
  readonly moeWidth: number;
}

/** @throws CONFIG_INVALID where a router cannot choose as the settings ask */
export function dims(settings: Settings): NemotronHDims {
  refuseRouting(settings);
  const of = (name: string) => (typeof settings[name] === "number" ? settings[name] : 0);
  return {
    hidden: of("hidden"),
    vocab: of("vocab"),
    eps: of("eps"),
    ...mambaWidths(settings),
    ...{ normGroups: of("groups"), normFirst: 0, inBias: 0, ssmOutBias: 0 },
    heads: of("heads"),
    kvHeads: of("kvHeads"),
    headDim: of("headDim"),
    q: of("heads") * of("headDim"),
    kv: of("kvHeads") * of("headDim"),
    ffn: of("ffn"),
    experts: of("experts"),
    moeFfn: of("moeFfn"),
    moeShared: of("moeShared"),
    latent: of("latent"),
    topK: of("topK"),
    routeGroups: of("routeGroups"),
    routeTopGroups: of("routeTopGroups"),
    routeNormalise: settings.routeNormalise === true ? 1 : 0,
    routeScale: of("routeScale"),
    moeWidth: of("latent") || of("hidden"),
  };
}

/** The score of a group is that of its two best experts, and the groups chosen must hold at least `topK` experts. */
function refuseRouting({ experts, topK, routeGroups: groups, routeTopGroups: topGroups }: Settings): void {
  if (typeof experts !== "number") return;
  const invalid = (message: string) => new IsologitError("CONFIG_INVALID", message);
  const size = experts / Number(groups);
  if (!Number.isInteger(size) || (groups !== 1 && size < 2))
    throw invalid(`${experts} experts cannot be cut into ${groups} equal groups of at least 2`);
  if (!(Number(topGroups) <= Number(groups) && Number(topK) <= size * Number(topGroups)))
    throw invalid(`a token cannot choose ${topK} of ${experts} experts in ${topGroups} of ${groups} groups`);
}
