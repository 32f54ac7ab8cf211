/** Pairs weights with their scales for `check`, which reports each fault and continues. */
import { pairScales, type ScaleTable } from "../checkpoint/scales/pair.ts";
import type { Checkpoint } from "../core/checkpoint.ts";
import type { Finding } from "../core/finding.ts";
import { findingOf } from "../core/finding.ts";

/** Largest number of findings about quantised weights whose scales do not fit. */
const MAX_UNPAIRED = 1000;

/**
 * The scales of all weights that pair. Each pair that does not fit is one finding: its scale is no unknown tensor, and its
 * weight is not one without a scale.
 */
export function pairOrReport({ tensors, format, config }: Checkpoint, findings: Finding[]): ScaleTable {
  let left = tensors;
  const faulty = new Set<string>();
  for (let unpaired = 0; ; unpaired++) {
    try {
      const scales = pairScales(left, config);
      return { ...scales, scaleTensors: new Set([...scales.scaleTensors, ...faulty]) };
    } catch (error) {
      const found = findingOf(error, format);
      const tensor = tensors.find(({ name }) => name === found.at.tensor);
      const isKnown = ENDINGS.some((ending) => faulty.has(`${tensor?.name}${ending}`));
      if (!isKnown) {
        findings.push({ ...found, at: { ...found.at, file: tensor?.pieces[0]?.file ?? found.at.file } });
      }
      if (tensor === undefined || unpaired === MAX_UNPAIRED) return pairScales([]);
      if (ENDINGS.some((ending) => tensor.name.endsWith(ending))) faulty.add(tensor.name);
      left = left.filter((candidate) => candidate !== tensor);
    }
  }
}

/** What the name of a scale has after the name of its weight. */
const ENDINGS = ["_scale", "_scale_inv", "_scale_2", "_global_scale"] as const;
