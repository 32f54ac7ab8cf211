/**
 * `check`: whether a checkpoint hangs together, from its headers, its config and its scales. No weight is read unless
 * every byte shall be.
 */

import { readHeader } from "../../formats/codec/safetensors.ts";
import { MAX_INDEX_BYTES, parseIndex } from "../../formats/hf/index-json.ts";
import { INDEX } from "../../formats/hf/place.ts";
import { ownCertificate } from "../certificate/own-certificate.ts";
import { checkConfig } from "../check/config.ts";
import { gatherFindings } from "../check/findings.ts";
import { checkIntegrity } from "../check/integrity.ts";
import { checkKeys } from "../check/keys.ts";
import type { CheckOptions } from "../check/options.ts";
import { checkQuantization, checkScales } from "../check/quantization.ts";
import { checkBytes } from "../check/read.ts";
import { checkTies } from "../check/ties.ts";
import { checkWeights } from "../check/weights.ts";
import { loadModel } from "../checkpoint/load.ts";
import { isNearMiss } from "../checkpoint/near-misses/recognise.ts";
import { openCheckpoint } from "../checkpoint/open.ts";
import { pairScales, type ScaleTable } from "../checkpoint/scales.ts";
import { storeAt } from "../checkpoint/store.ts";
import { describeSurplus } from "../checkpoint/surplus.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import { IsologitError } from "../core/errors.ts";
import type { Finding, FindingsReport } from "../core/finding.ts";
import { finding, findingOf, isOk, nearMiss } from "../core/finding.ts";
import { readSmall } from "../core/io.ts";
import { Sources } from "../core/read.ts";
import { families as allFamilies } from "../families/index.ts";
import { judgeFindings } from "../verify/judge-findings.ts";

/** FP8 weights whose scales are wrong one by one; a checkpoint of a million such is bad enough after these. */
const MAX_UNPAIRED = 1000;

/** @throws NOT_FOUND, IO_FAILED and whatever is not the checkpoint's fault; its faults are findings */
export async function check(source: string, options: CheckOptions = {}): Promise<FindingsReport> {
  const findings: Finding[] = [];
  const checkpoint = await opened(source, options, findings);
  if (checkpoint !== null) {
    findings.push(...checkFiles(checkpoint));
    findings.push(...(await checkIntegrity(checkpoint.store)));
    await using files = new Sources(checkpoint.store);
    const ofTensors = await checkTensors(checkpoint, source, options, files);
    const told = isOk(ofTensors) ? null : await nearMissIn(checkpoint, options);
    // Of weights in another software's hands, what does not fit is told once, by its name, not once a tensor.
    findings.push(...(told === null ? ofTensors : [nearMiss(told, source)]));
    findings.push(...checkKeys(checkpoint, options.families ?? allFamilies));
    // Without a config there is nothing to hold against its neighbours, and the lack of it was told.
    const isSilent = told !== null && Object.keys(checkpoint.config).length === 0;
    if (isOfTransformers(checkpoint) && !isSilent) findings.push(...(await checkConfig(checkpoint, files)));
  }
  const found = [...gatherFindings(findings)];
  if (checkpoint !== null && options.read === true) {
    // Each damaged chunk is told by itself: it may be all that has to be fetched again.
    found.push(...(await checkBytes(checkpoint, options)));
    found.push(...((await ownCertificate(source, checkpoint))?.findings ?? []));
  }
  const judged = judgeFindings(found, options.strict);
  return { ok: isOk(judged), findings: judged };
}

const isOfTransformers = ({ format }: Checkpoint): boolean => format === "hf" || format === "packed";

/** Weights against config and scales. */
async function checkTensors(
  checkpoint: Checkpoint,
  source: string,
  options: CheckOptions,
  files: Sources,
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  const scales = paired(checkpoint, findings);
  const families = options.families ?? allFamilies;
  findings.push(...checkWeights(checkpoint, families, scales.scaleTensors, source));
  findings.push(...(await checkTies(checkpoint, families, scales.scaleTensors, files)));
  findings.push(...(await checkScales(checkpoint, scales, files)));
  if (isOfTransformers(checkpoint)) findings.push(...(await checkQuantization(checkpoint, scales)));
  return findings;
}

/** What lies there, where names, shapes or scales fit no model; null where they fit, or nothing is recognised. */
async function nearMissIn(checkpoint: Checkpoint, options: CheckOptions): Promise<IsologitError | null> {
  try {
    await loadModel(checkpoint, options);
    return null;
  } catch (error) {
    return isNearMiss(error) ? error : null;
  }
}

async function opened(
  source: string,
  options: CheckOptions,
  findings: Finding[],
): Promise<Checkpoint | null> {
  try {
    // Where every byte will be read, damage is listed then; it must not end the first read that meets it.
    return await openCheckpoint(source, options.formats, { ...options, sealed: options.read !== true });
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

/** What was odd about the files, and which of them are no part of the model. */
function checkFiles({ remarks = [], surplus = [], store }: Checkpoint): readonly Finding[] {
  return [
    ...remarks.map(({ rule, severity, at, message }) => finding(rule, severity, at, message)),
    ...describeSurplus(surplus, false).map((text) => finding("surplus", "note", { file: store.url }, text)),
  ];
}

/** A weight file that the index names and nobody has is the checkpoint's fault, not the path's. */
function asDamage({ message, at }: IsologitError): IsologitError {
  return new IsologitError("INDEX_MISMATCH", message, at);
}

/** Every weight file on its own, where the folder as a whole could not be read. */
async function checkShards(source: string, findings: Finding[]): Promise<void> {
  const store = await storeAt(source);
  const present = (await store.list()).map(({ path }) => path);
  const known = (rule: string, file: string) =>
    findings.some((one) => one.rule === rule && one.at.file === file);
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
      add(new IsologitError("INDEX_MISMATCH", `${INDEX} names a weight file that is not there`), file);
      continue;
    }
    await using shard = await store.open(file);
    await readHeader(shard, file).catch((error) => add(error, file));
  }
}

/** Weights with their scales; what does not pair is a finding each, and the rest is paired without it. */
function paired({ tensors, format }: Checkpoint, findings: Finding[]): ScaleTable {
  let left = tensors;
  for (let unpaired = 0; ; unpaired++) {
    try {
      return pairScales(left);
    } catch (error) {
      const found = findingOf(error, format);
      const tensor = tensors.find(({ name }) => name === found.at.tensor);
      findings.push({ ...found, at: { ...found.at, file: tensor?.pieces[0]?.file ?? found.at.file } });
      if (tensor === undefined || unpaired === MAX_UNPAIRED) return pairScales([]);
      left = left.filter((one) => one !== tensor);
    }
  }
}
