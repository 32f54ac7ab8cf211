/** What a program that runs checkpoints reads of a quantised folder. Each engine is a file beside this file. */
import type { DeclarationFile } from "../../checkpoint/declared-quantization.ts";
import type { ListKey } from "../scheme.ts";
import type { QuantizedFolder } from "./folder.ts";
import type { MatchingRule } from "./matching.ts";

/** In the order in which they are named. */
export const ENGINE_IDS = ["vllm", "sglang", "trtllm", "transformers"] as const;
export type EngineId = (typeof ENGINE_IDS)[number];

export interface Engine {
  readonly id: EngineId;
  readonly name: string;
  /** files in which it looks for a declaration; the first that has one counts */
  readonly files: readonly DeclarationFile[];
  /** methods that it reads */
  readonly methods: Readonly<Partial<Record<string, MethodReader>>>;
  /** methods that it is known not to read, with what it does instead; begins after the engine's name */
  readonly refuses?: Readonly<Partial<Record<string, string>>>;
  /** Other limits of this engine that a folder exceeds; none where it does not know the method. */
  readonly limits: (folder: QuantizedFolder) => readonly EngineLimit[];
}

/** How an engine reads the folders of a method. */
export interface MethodReader {
  /** keys of the list in config.json that it reads */
  readonly lists: readonly ListKey[];
  readonly findEntry: MatchingRule;
  /** the rule in words, after the engine's name */
  readonly rule: string;
  /** whether it quantises a head that is neither listed nor named by a target */
  readonly head: boolean;
  /** versions of the engine differ in the rule: what it alone reads otherwise is a note */
  readonly varies?: true;
}

/** Something of a folder that one engine does not read as it is meant. */
export interface EngineLimit {
  readonly rule: string;
  /** "asked": reported only where the user names the engine, because most folders of the dialect are so */
  readonly severity: "note" | "warning" | "asked";
  /** the engine loads and computes right, under a condition that the message states */
  readonly loads?: boolean;
  /** begins after the engine's name */
  readonly message: string;
  readonly tensor: string | null;
}
