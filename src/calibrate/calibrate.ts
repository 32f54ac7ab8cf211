/** Scales of activations from one forward pass of the source over all prompts. The weights are read once, in bands; no layer stays in memory. */
import { createMeter } from "../../kernels/backend/meter.ts";
import { ADDRESSABLE_BYTES } from "../../kernels/backend/wasm.ts";
import { scaleOf } from "../cast/cast.ts";
import { type LoadedModel, readScaleValues } from "../checkpoint/load.ts";
import type { RunOptions } from "../checkpoint/options.ts";
import { IsologitError } from "../core/errors.ts";
import { ignoreEvents } from "../core/events.ts";
import type { Role } from "../families/model.ts";
import { type Layer, roleKey } from "../families/structure.ts";
import { runForwardPass } from "../inference/forward-pass.ts";
import { backendFor, memoryOf, threadsOf } from "../inference/machine.ts";
import { refuseUnrunnable } from "../inference/model-runner.ts";
import type { MatrixInput, PassObserver } from "../inference/observe.ts";
import type { Calibration, CalibrationOptions, CalibrationRule } from "../quantization/calibration.ts";
import { calibrationPrompts } from "./prompt.ts";
import { coveredMagnitude } from "./rules.ts";

/**
 * Runs the source over the calibration's prompts, with one reading of the weights, and derives a scale for the input of each matrix of the main layers and of
 * the head, and for each stream that a KV cache keeps.
 *
 * @returns null if the options ask for no calibration
 * @throws UNSUPPORTED for a model that does not run; PLAN_MEMORY; NON_FINITE for an activation; the errors of the prompt
 */
export async function calibrateModel(
  model: LoadedModel,
  options: RunOptions & CalibrationOptions,
): Promise<Calibration | null> {
  const { calibrate, calibrateRule: rule = "amax" } = options;
  if (calibrate === undefined) return null;
  refuseUnrunnable(model);
  const { prompts, record, warnings } = await calibrationPrompts(
    calibrate,
    model.checkpoint,
    model.dims.vocab,
  );
  const [ids, sequences] = [prompts.flat(), prompts.map(({ length }) => length)];
  await refuseMemory(model, ids, { ...options, sequences });
  const source = await readScaleValues(model);
  const { observer, inputs, cached } = collectScales(model, rule);
  await using backend = await backendFor(options);
  await runForwardPass(source, ids, backend, { ...options, sequences }, { observer }, "calibrate");
  return { record, inputs, cached, warnings: [...warnings, ...fillUnusedExperts(model, inputs)] };
}

/** Maps from role keys to scales, and the observer that fills them. */
function collectScales(model: LoadedModel, rule: CalibrationRule) {
  const inputs = new Map<string, number>();
  const cached = new Map<string, number>();
  const rolesIn = (layer: Layer) => [...model.roles.values()].filter((role) => role.layer === layer);
  const observer: PassObserver = {
    input(input) {
      const keys = rolesOf(model, input);
      if (keys.length === 0) return;
      const scale = scaleFor(input.values, rule, input.tensors[0]!);
      for (const key of keys) inputs.set(key, scale);
    },
    cached({ layer, stream, values }) {
      for (const { key, spec } of rolesIn(layer)) {
        if (spec.cached?.stream(model.dims) === stream) cached.set(key, scaleFor(values, rule, key));
      }
    },
  };
  return { observer, inputs, cached };
}

/** Keys of the roles whose matrices multiply these rows. A stored tensor may hold all experts; each has its own rows. */
function rolesOf({ holds, roles }: LoadedModel, { tensors, expert }: MatrixInput): readonly string[] {
  return tensors
    .flatMap((tensor) => holds.get(tensor) ?? [])
    .filter((key) => {
      const { spec, layer } = roles.get(key)!;
      return expert === null || key === roleKey(spec.role, layer, expert);
    });
}

function scaleFor(values: Float32Array, rule: CalibrationRule, tensor: string): number {
  const magnitude = coveredMagnitude(values, rule);
  if (Number.isFinite(magnitude)) return scaleOf(magnitude, "F8_E4M3");
  const message = `the forward pass gives it an input of ${magnitude}; no scale covers that`;
  throw new IsologitError("NON_FINITE", message, { tensor });
}

/**
 * An expert without a token gets the largest scale of its role in the layer. Engines use one input scale for all experts of
 * a layer, the largest; a missing scale would be 1.0 or uninitialised there.
 *
 * @returns a warning for each layer with such experts
 */
function fillUnusedExperts({ roles, layers }: LoadedModel, inputs: Map<string, number>): readonly string[] {
  const warnings: string[] = [];
  for (const layer of layers.filter(({ stack }) => stack === "main")) {
    const ofLayer = [...roles.values()].filter((role) => role.layer === layer && isExpert(role));
    const unused = ofLayer.filter(({ key }) => !inputs.has(key));
    for (const { key, spec } of unused) {
      const others = ofLayer.flatMap((role) => (role.spec === spec ? (inputs.get(role.key) ?? []) : []));
      inputs.set(key, Math.max(...others));
    }
    const numbers = [...new Set(unused.map(({ key }) => key.slice(key.lastIndexOf(".") + 1)))];
    if (numbers.length > 0) warnings.push(unusedWarning(layer, numbers));
  }
  return warnings;
}

const isExpert = ({ spec }: Role): boolean => spec.experts !== undefined;

function unusedWarning({ index }: Layer, numbers: readonly string[]): string {
  const [which, whose] =
    numbers.length === 1
      ? [`expert ${numbers[0]}`, "its input scale is"]
      : [`experts ${numbers.join(", ")}`, "their input scales are"];
  return `layer ${index}: ${which} got no token of the calibration; ${whose} the largest of the layer`;
}

/** Measures the buffers of the pass by a run that only counts memory. @throws PLAN_MEMORY */
async function refuseMemory(
  model: LoadedModel,
  ids: readonly number[],
  options: Parameters<typeof runForwardPass>[3],
): Promise<void> {
  const meter = createMeter(threadsOf(options));
  await runForwardPass(
    { ...model, scaleValues: new Map() },
    ids,
    meter,
    { ...options, watch: ignoreEvents },
    {},
  );
  const allowed = Math.min(memoryOf(options), ADDRESSABLE_BYTES);
  if (meter.peakBytes <= allowed) return;
  const message = `a calibration with ${ids.length} tokens needs ${meter.peakBytes} bytes of buffers; ${allowed} are allowed`;
  const next = "give `calibrate` fewer tokens, or allow more `memoryBytes`";
  throw new IsologitError("PLAN_MEMORY", message, {}, { next });
}
