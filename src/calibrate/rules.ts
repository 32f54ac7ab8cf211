/** The largest magnitude that a scale covers. Larger activations are clipped to it. */
import { encode, NARROW, tableOf } from "../core/float.ts";
import type { CalibrationRule } from "../quantization/calibration.ts";

/** As in Model-Optimizer's `HistogramCalibrator`. */
const BINS = 2048;
/** Share of the values that the rule "percentile" covers; the default of Model-Optimizer's `HistogramCalibrator`. */
const COVERED = 0.9999;
/** The rule "mse" tries 1, 0.99, … 0.80 times the largest magnitude, as the observer `mse` of llm-compressor does. */
const GRID = 100;
const MOST_SHRINK = 20;

/**
 * - "amax": the largest magnitude, as the presets of Model-Optimizer and llm-compressor choose it
 * - "percentile": a magnitude that 99.99 % of the values do not exceed
 * - "mse": the magnitude with which the squared error of E4M3 is least; of equal errors the larger magnitude
 *
 * The order of the values has no effect.
 *
 * @param values at least one value
 * @returns an F32 number of at least 0; NaN or infinity where a value is
 */
export function coveredMagnitude(values: Float32Array, rule: CalibrationRule): number {
  const amax = largestMagnitude(values);
  if (rule === "amax" || amax === 0 || !Number.isFinite(amax)) return amax;
  const counts = histogram(values, amax);
  return Math.fround(rule === "percentile" ? percentile(counts, amax) : leastError(counts, amax));
}

function largestMagnitude(values: Float32Array): number {
  let amax = 0;
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i]!);
    if (magnitude > amax) amax = magnitude;
    else if (Number.isNaN(magnitude)) return magnitude;
  }
  return amax;
}

/** How many magnitudes are in each of BINS equal intervals of [0, amax]. */
function histogram(values: Float32Array, amax: number): Float64Array {
  const counts = new Float64Array(BINS);
  const perUnit = BINS / amax;
  for (let i = 0; i < values.length; i++) {
    const bin = Math.min(BINS - 1, Math.floor(Math.abs(values[i]!) * perUnit));
    counts[bin] = counts[bin]! + 1;
  }
  return counts;
}

/** The upper end of the first interval up to which COVERED of the values lie. */
function percentile(counts: Float64Array, amax: number): number {
  const wanted = COVERED * counts.reduce((sum, count) => sum + count, 0);
  let covered = 0;
  const bin = counts.findIndex((count) => {
    covered += count;
    return covered >= wanted;
  });
  return ((bin + 1) / BINS) * amax;
}

function leastError(counts: Float64Array, amax: number): number {
  let best = { magnitude: amax, error: Infinity };
  for (let shrink = 0; shrink <= MOST_SHRINK; shrink++) {
    const magnitude = amax * (1 - shrink / GRID);
    const error = squaredError(counts, amax, Math.fround(magnitude / NARROW.F8_E4M3.max));
    if (error < best.error) best = { magnitude, error };
  }
  return best.magnitude;
}

/** Sum of the squared errors of E4M3 codes under a scale; the middle of an interval stands for its values. */
function squaredError(counts: Float64Array, amax: number, scale: number): number {
  const { max } = NARROW.F8_E4M3;
  const table = tableOf("F8_E4M3");
  let sum = 0;
  for (let bin = 0; bin < BINS; bin++) {
    if (counts[bin] === 0) continue;
    const value = ((bin + 0.5) / BINS) * amax;
    const decoded = table[encode("F8_E4M3", Math.min(max, value / scale))]! * scale;
    sum += counts[bin]! * (value - decoded) ** 2;
  }
  return sum;
}
