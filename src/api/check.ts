/**
 * `check`: finds faults of a checkpoint from its headers, its config and its scales. Weights are read only if the option
 * `read` is set.
 */

import { readHeader } from "../../formats/codec/safetensors.ts";
import { MAX_INDEX_BYTES, parseIndex } from "../../formats/hf/index-json.ts";
import { INDEX } from "../../formats/hf/place.ts";
import { ownCertificate } from "../certificate/own-certificate.ts";
import { checkConfig } from "../check/config.ts";
import { gatherFindings } from "../check/findings.ts";
import { checkIntegrity } from "../check/integrity.ts";
import { checkKeys } from "../check/keys.ts";
import { checkCodes } from "../check/nan-codes.ts";
import type { CheckOptions } from "../check/options.ts";
import { pairOrReport } from "../check/pairing.ts";
import { checkQuantization, checkScales, refuseUnknownEngines } from "../check/quantization.ts";
import { checkBytes } from "../check/read.ts";
import { checkServing } from "../check/serving.ts";
import { checkTies } from "../check/ties.ts";
import { checkWeights } from "../check/weights.ts";
import { loadModel } from "../checkpoint/load.ts";
import { isNearMiss } from "../checkpoint/near-misses/recognise.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import { storeAt } from "../checkpoint/store.ts";
import { describeSurplus } from "../checkpoint/surplus.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import type { Finding, FindingsReport } from "../core/finding.ts";
import { finding, findingOf, isOk, nearMiss } from "../core/finding.ts";
import { readSmall } from "../core/io.ts";
import { Sources } from "../core/read.ts";
import { type PluginsReport, pluginsReport } from "../plugins/plugin.ts";
import { registryOf } from "../plugins/registry.ts";
import { judgeFindings } from "../verify/judge-findings.ts";

export interface CheckReport extends FindingsReport, PluginsReport {
  /**
   * engines can serve text from the folder as it stands: no error, no warning of an engine, a tokenizer, and a token that ends a
   * text; null for a format that engines do not load
   */
  readonly servable: boolean | null;
}

/**
 * Checks a checkpoint without a second checkpoint: files, index, config, tensor names, shapes and scales.
 *
 * @param source path or `hf://` address of a checkpoint
 * @param options `read` also reads every byte and compares the bytes with the digests of the format; `for` names the
 *   engines that will run the checkpoint
 * @returns the findings; `ok` if no finding is an error; whether engines can serve text from it
 * @throws USAGE: an engine is unknown; NOT_FOUND, IO_FAILED, and errors that are not a fault of the checkpoint; faults of the checkpoint are findings
 * @example
 * const { ok, findings } = await check("./nemotron-h-8b", { read: true });
 */
export async function check(source: string, options: CheckOptions = {}): Promise<CheckReport> {
  refuseUnknownEngines(options);
  const findings: Finding[] = [];
  const checkpoint = await openOrReport(source, options, findings);
  let served: readonly Finding[] | null = null;
  if (checkpoint !== null) {
    findings.push(...checkFiles(checkpoint));
    findings.push(...(await checkIntegrity(checkpoint.store)));
    await using files = new Sources(checkpoint.store);
    served = await checkModel(checkpoint, source, options, files, findings);
  }
  const found = [...gatherFindings(findings)];
  if (checkpoint !== null && options.read === true) {
    // Each damaged chunk has its own finding: the user may have to fetch only that chunk again.
    const damage = await checkBytes(checkpoint, options);
    found.push(...damage);
    if (damage.length === 0) found.push(...(await checkCodes(checkpoint, options.signal)));
    found.push(...((await ownCertificate(source, checkpoint))?.findings ?? []));
  }
  const judged = judgeFindings(found, options.strict);
  const ok = isOk(judged);
  const refused = judged.some(({ rule, severity }) => rule.startsWith("engine-") && severity === "warning");
  const servable = served === null ? null : ok && served.length === 0 && !refused;
  return { ok, findings: judged, servable, ...pluginsReport(options) };
}

/** Compares weights, config and side files. @returns what keeps engines from serving the folder; null for other formats */
async function checkModel(
  checkpoint: Checkpoint,
  source: string,
  options: CheckOptions,
  files: Sources,
  findings: Finding[],
): Promise<readonly Finding[] | null> {
  const ofTensors = await checkTensors(checkpoint, source, options, files);
  const miss = isOk(ofTensors) ? null : await nearMissIn(checkpoint, options);
  // Weights of another software get one finding with the name of that software, not one finding a tensor.
  findings.push(...(miss === null ? ofTensors : [nearMiss(miss, source)]));
  findings.push(...checkKeys(checkpoint, registryOf(options).families));
  // Without a config there is nothing to compare, and the near miss reports the missing config.
  const isSilent = miss !== null && Object.keys(checkpoint.config).length === 0;
  if (isOfTransformers(checkpoint) && !isSilent) findings.push(...(await checkConfig(checkpoint, files)));
  if (checkpoint.format !== "hf" || isSilent) return null;
  const served = await checkServing(checkpoint, files);
  findings.push(...served);
  return served;
}

const isOfTransformers = ({ format }: Checkpoint): boolean => format === "hf" || format === "packed";

/** Compares the weights with the config and the scales. */
async function checkTensors(
  checkpoint: Checkpoint,
  source: string,
  options: CheckOptions,
  files: Sources,
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  const scales = pairOrReport(checkpoint, findings);
  const { families } = registryOf(options);
  findings.push(...checkWeights(checkpoint, families, scales.scaleTensors, source));
  findings.push(...(await checkTies(checkpoint, families, scales.scaleTensors, files)));
  findings.push(...(await checkScales(checkpoint, scales, files)));
  if (isOfTransformers(checkpoint))
    findings.push(...(await checkQuantization(checkpoint, scales, options.for)));
  return findings;
}

/** The near miss, if names, shapes or scales fit no model; null if they fit, or if no other software is recognised. */
async function nearMissIn(checkpoint: Checkpoint, options: CheckOptions): Promise<IsologitError | null> {
  try {
    await loadModel(checkpoint, options);
    return null;
  } catch (error) {
    return isNearMiss(error) ? error : null;
  }
}

async function openOrReport(
  source: string,
  options: CheckOptions,
  findings: Finding[],
): Promise<Checkpoint | null> {
  try {
    // With `read`, a later step lists damage; so the first read that finds damage must not throw.
    return await openCheckpoint(source, { ...options, makeFiles: false, sealed: options.read !== true });
  } catch (error) {
    if (isNearMiss(error)) {
      findings.push(nearMiss(error, source));
      return null;
    }
    const lost = error instanceof IsologitError && error.code === "NOT_FOUND" && error.at.file !== source;
    findings.push(findingOf(lost ? asDamage(error) : error, source));
    if (options.keepGoing === true) await checkShards(source, findings);
    return null;
  }
}

/** Remarks about the files, and the files that are not part of the model. */
function checkFiles({ remarks = [], surplus = [], store }: Checkpoint): readonly Finding[] {
  return [
    ...remarks.map(({ rule, severity, at, message }) => finding(rule, severity, at, message)),
    ...describeSurplus(surplus, false).map((text) => finding("surplus", "note", { file: store.url }, text)),
  ];
}

/** A missing weight file that the index names is a fault of the checkpoint, not of the path. */
function asDamage({ message, at }: IsologitError): IsologitError {
  return new IsologitError("INDEX_MISMATCH", message, at);
}

/** Checks each weight file by itself, if the whole folder could not be read. */
async function checkShards(source: string, findings: Finding[]): Promise<void> {
  const store = await storeAt(source);
  const present = (await store.list()).map(({ path }) => path);
  const known = (rule: string, file: string) =>
    findings.some((found) => found.rule === rule && found.at.file === file);
  const add = (error: unknown, file: string) => {
    const found = findingOf(error, file);
    if (!known(found.rule, found.at.file)) findings.push(found);
  };
  const named = present.includes(INDEX)
    ? await readSmall(store, INDEX, MAX_INDEX_BYTES).then(
        (bytes) => parseIndex(bytes, INDEX, store).files,
        (error) => {
          add(error, INDEX);
          return [];
        },
      )
    : [];
  for (const file of new Set([...named, ...present.filter((path) => /^[^/]+\.safetensors$/.test(path))])) {
    if (!present.includes(file)) {
      add(new IsologitError("INDEX_MISMATCH", `${INDEX} names a weight file that does not exist`), file);
      continue;
    }
    await using shard = await store.open(file);
    await readHeader(shard, file).catch((error) => add(error, file));
  }
}
