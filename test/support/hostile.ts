/** Checkpoints that no reader may take, by format. */
import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import type { HostileFiles } from "../../src/conformance/formats.ts";
import { fileStore } from "../../src/io/file.ts";
import { memoryStore } from "./memory-store.ts";

const fixtures = new URL("../../fixtures/hostile/", import.meta.url).pathname;

interface HostileGguf {
  readonly file: string;
  readonly expect: "refuse" | "ok";
  readonly code?: string;
  /** what the error must name: a key, a tensor, or a number */
  readonly names?: string;
  readonly rule: string;
}

/** Files with one broken rule each, and some that look odd and are right. */
export const hostileGguf: readonly HostileGguf[] = JSON.parse(
  readFileSync(join(fixtures, "gguf", "expected.json"), "utf8"),
);

export async function hostileTo(format: string): Promise<readonly HostileFiles[]> {
  switch (format) {
    case "packed":
      return damaged("packed");
    case "hf":
      return damaged("safetensors");
    case "gguf": {
      const cases = hostileGguf.filter(({ expect }) => expect === "refuse");
      const path = (file: string) => join(fixtures, "gguf", file);
      return Promise.all(
        cases.map(async ({ file, code }) => ({ name: file, code, hostile: await fileStore(path(file)) })),
      );
    }
    case "nemo1":
      return Promise.all(
        traps(/\.nemo$/).map(async (name) => ({ name, hostile: await fileStore(trap(name)) })),
      );
    case "bridge":
      return Promise.all(
        traps(/^dcp-/).map(async (name) => ({ name, hostile: await fileStore(trap(name)) })),
      );
    case "nemo2":
      return traps(/^dcp-/).map((name) => ({ name, hostile: memoryStore(name, asNemo(trap(name))) }));
    default:
      return traps(/\.pt$/).map((name) => ({ name, hostile: memoryStore(name, asRank(trap(name))) }));
  }
}

/** One damaged file a rule, its code beside it. */
async function damaged(folder: string): Promise<readonly HostileFiles[]> {
  const path = join(fixtures, folder);
  const expected: Record<string, string | { code: string }> = JSON.parse(
    readFileSync(join(path, "expected.json"), "utf8"),
  );
  const files = readdirSync(path).filter((file) => file !== "expected.json");
  return Promise.all(
    files.map(async (name) => {
      const rule = expected[name] ?? expected[name.replace(/\.\w+$/, "")];
      const code = typeof rule === "string" ? rule : rule?.code;
      return { name, code: code ?? "no rule", hostile: await fileStore(join(path, name)) };
    }),
  );
}

const trap = (name: string): string => join(fixtures, "pickles", name);

/** What the manifest of traps wants refused, and what lies outside of exit status 3 left out. */
function traps(names: RegExp): string[] {
  const { cases } = JSON.parse(readFileSync(trap("manifest.json"), "utf8")) as {
    cases: { file: string; expect: string }[];
  };
  const wanted = cases.filter(({ file, expect }) => names.test(file) && expect === "refuse");
  return wanted.map(({ file }) => file).filter((file) => file !== "dcp-path-missing"); // a file is missing: 4
}

/** A hostile distributed checkpoint as the weights of NeMo 2. */
function asNemo(folder: string): Map<string, Uint8Array> {
  const weights = readdirSync(folder).filter((file) => statSync(join(folder, file)).isFile());
  return new Map([
    ["context/model.yaml", Buffer.from("_target_: nemo.M\nconfig: {_target_: nemo.C}\n")],
    ...weights.map((file) => [`weights/${file}`, new Uint8Array(readFileSync(join(folder, file)))] as const),
  ]);
}

/** A hostile file of torch as the only rank of Megatron. */
function asRank(file: string): Map<string, Uint8Array> {
  return new Map([["iter_0000001/mp_rank_00/model_optim_rng.pt", new Uint8Array(readFileSync(file))]]);
}
