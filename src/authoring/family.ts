/// <reference types="node" preserve="true" />
/** `isologit/family`: what the author of a family needs. docs/extending.md walks through an example. */
export type { Tensor } from "../core/checkpoint.ts";
export type { DType, FloatDType, Shape } from "../core/dtype.ts";
export { IsologitError } from "../core/errors.ts";
export { concat, type Layout, leaf, pad, reshape, shapeOf, slice } from "../core/mapping/layout.ts";
export type {
  ConfigInput,
  Dialect,
  KeyRemark,
  ObservedFacts,
  ParsedConfig,
  Rule,
  ShardPosition,
} from "../families/dialect.ts";
export type { Family, Recipe } from "../families/family.ts";
export type {
  Carry,
  ExpertChoice,
  Forward,
  HeadPairs,
  KernelStage,
  Native,
  OutputRows,
  Stage,
  TensorPosition,
  Use,
} from "../families/forward.ts";
export {
  type Config,
  type Dims,
  type Layer,
  type Parallelism,
  type RoleSpec,
  roleKey,
  type Settings,
  type Structure,
} from "../families/structure.ts";
export type { Plugin } from "../plugins/plugin.ts";
