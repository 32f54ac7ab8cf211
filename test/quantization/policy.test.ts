import { mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import type { DType, RecastTarget } from "../../src/core/dtype.ts";
import type { Recipe } from "../../src/families/family.ts";
import { decideRole, type PolicyOptions, policyOf } from "../../src/quantization/policy.ts";
import { keptReason, type LayerAt, parseRecipe, type RoleKind } from "../../src/quantization/recipe.ts";

/** A family as recipes see it, every kind of role in it. */
const KINDS = {
  embedding: ["embed"],
  matrix: [
    ...["ssm.in", "ssm.out", "attn.q", "attn.k", "attn.v", "attn.o", "mlp.up", "mlp.down", "head"],
    ...["moe.up", "moe.down", "moe.shared.up", "moe.shared.down", "moe.latent.in", "moe.latent.out"],
  ],
  vector: ["norm", "final.norm", "ssm.norm", "ssm.conv", "ssm.conv.bias"],
  state: ["ssm.A_log", "ssm.D", "ssm.dt_bias"],
  router: ["moe.gate", "moe.gate.bias"],
} as const;
const roles: readonly RoleKind[] = Object.entries(KINDS).flatMap(([kind, names]) =>
  names.map((role) => ({ role, kind: kind as RoleKind["kind"] })),
);
const training = ["ssm.in", "ssm.out", "mlp.up", "mlp.down", "moe.up", "moe.down", "moe.shared.*"];
const recipes: readonly Recipe[] = [
  { id: "nemotron-h", keepEnds: 2, cast: training },
  { id: "all-linear", keepEnds: 0, cast: ["ssm.in", "ssm.out", "attn.*", "mlp.*", "moe.*", "head"] },
];
const family = { recipes, roles };

const LETTERS = { M: "mamba", "*": "attention", "-": "mlp", E: "moe" } as const;
const stack = (name: LayerAt["stack"], pattern: string): LayerAt[] =>
  [...pattern].map((letter, index) => ({
    stack: name,
    index,
    kind: LETTERS[letter as keyof typeof LETTERS],
    of: 1,
  }));
const layers = [...stack("main", "M-ME*-M*-M"), ...stack("mtp", "*E")];
const PREFIX: Readonly<Record<string, string>> = {
  mamba: "ssm.",
  attention: "attn.",
  mlp: "mlp.",
  moe: "moe.",
};

/** The names of what a policy casts, as `role@layer`, all stored as `dtype`. */
async function cast(options: PolicyOptions, dtype: DType = "BF16") {
  const policy = await policyOf(options, family);
  const found = new Set<string>();
  for (const spec of roles) {
    const own = layers.filter(({ kind }) => spec.role.startsWith(PREFIX[kind]!));
    for (const layer of own.length > 0 ? own : [null]) {
      const { to } = decideRole({ spec, layer }, dtype, policy, { layers });
      if (to !== "keep")
        found.add(layer ? `${spec.role}@${layer.stack[1] === "t" ? "mtp" : layer.index}` : spec.role);
    }
  }
  return [...found].sort();
}

async function code(run: () => unknown): Promise<unknown> {
  return Promise.resolve()
    .then(run)
    .then(
      () => "nothing was refused",
      (error: unknown) => error,
    );
}

it("an end is a block where attention and MLP share a number", () => {
  const kinds = ["attention", "mlp", "attention", "mlp", "attention", "mlp"];
  const blocks = kinds.map((kind, index): LayerAt => ({ stack: "main", index, kind, of: 2 }));
  const recipe = { id: "ends", keepEnds: 1, cast: ["*"] };
  const kept = blocks.map((layer) => keptReason(recipe, "mlp.up", layer, blocks) !== null);
  expect(kept).toEqual([true, true, false, false, true, true]);
});

describe("FP8", () => {
  it("casts by default what the training recipe cast: projections between the ends, no attention, no mtp", async () => {
    expect(await cast({ dtype: "fp8-e4m3" })).toEqual(
      [
        ...["ssm.in@2", "ssm.out@2", "ssm.in@6", "ssm.out@6", "mlp.up@5", "mlp.down@5"],
        ...["moe.up@3", "moe.down@3", "moe.shared.up@3", "moe.shared.down@3"],
      ].sort(),
    );
  });

  it("counts the ends anew with --keep-ends", async () => {
    expect(await cast({ dtype: "fp8-e4m3", keepEnds: 0 })).toHaveLength(18);
    expect(await cast({ dtype: "fp8-e4m3", keepEnds: 1 })).not.toContain("ssm.in@9");
    expect(await cast({ dtype: "fp8-e5m2", keepEnds: 5 })).toEqual([]);
  });

  it("under all-linear casts every projection and nothing else", async () => {
    const found = await cast({ dtype: "fp8-e4m3", recipe: "all-linear" });
    expect(new Set(found.map((one) => one.split("@")[0]))).toEqual(new Set(KINDS.matrix));
    expect(found).toContain("ssm.in@0");
    expect(found.filter((one) => one.endsWith("mtp"))).toEqual([]);
  });

  it("leaves alone what is FP8 of that kind, integers, and types it does not know", async () => {
    for (const dtype of ["F8_E4M3", "I64", "U8"] as const) {
      expect(await cast({ dtype: "fp8-e4m3" }, dtype)).toEqual([]);
    }
  });
});

describe("f32, f16 and bf16", () => {
  const everything = roles.map(({ role }) => role);
  const precious = [...KINDS.state, ...KINDS.router];
  const others = everything.filter((role) => !(precious as readonly string[]).includes(role));

  it.each([
    ["f32", "BF16", everything],
    ["f32", "F8_E4M3", everything],
    ["bf16", "F32", others],
    ["bf16", "F16", others],
    ["f16", "F32", others],
    ["f16", "BF16", others],
    ["bf16", "F8_E4M3", everything],
    ["bf16", "BF16", []],
    ["keep", "F32", []],
  ] as readonly [RecastTarget, DType, readonly string[]][])("%s of %s", async (dtype, stored, expected) => {
    const found = await cast({ dtype }, stored);
    expect(new Set(found.map((one) => one.split("@")[0]))).toEqual(new Set(expected));
  });

  it("touch prediction layers too, unless a recipe is given", async () => {
    expect(await cast({ dtype: "f32" })).toContain("attn.q@mtp");
    const narrowed = await cast({ dtype: "f32", recipe: "all-linear" });
    expect(narrowed).not.toContain("attn.q@mtp");
    expect(narrowed).toContain("moe.gate@3");
    expect(narrowed).not.toContain("embed");
  });

  it("say what config.json should say, where all of the model is cast", async () => {
    const said = async (options: object) => (await policyOf(options, family)).torchDtype;
    expect(await said({ dtype: "bf16" })).toBe("bfloat16");
    expect(await said({ dtype: "f32" })).toBe("float32");
    expect(await said({ dtype: "bf16", recipe: "all-linear" })).toBeNull();
    expect(await said({ dtype: "fp8-e4m3" })).toBeNull();
    expect(await said({})).toBeNull();
  });
});

describe("flags that do not go together", () => {
  it.each([
    [{ recipe: "all-linear" }, "USAGE"],
    [{ keepEnds: 1 }, "USAGE"],
    [{ dtype: "bf16", keepEnds: 1 }, "USAGE"],
    [{ dtype: "fp8-e4m3", keepEnds: -1 }, "USAGE"],
    [{ dtype: "fp8-e4m3", keepEnds: 1.5 }, "USAGE"],
    [{ dtype: "fp8-e4m3", recipe: "nemotron" }, "RECIPE_INVALID"],
    [{ dtype: "fp8-e4m3", recipe: "absent.yaml" }, "NOT_FOUND"],
  ] as const)("%o", async (options, expected) => {
    expect(await code(() => policyOf(options, family))).toMatchObject({ code: expected });
  });
});

const CAREFUL = `# what we tried first
id: careful
keep_ends: 1
cast: [ssm.*, "mlp.*"]
keep:
  - mlp.down
keep_layers: [6]
keep_mamba_before_attention: true
`;

describe("a recipe file", () => {
  it("is read in full", async () => {
    expect(await parseRecipe(CAREFUL, "r.yaml", roles)).toEqual({
      id: "careful",
      keepEnds: 1,
      cast: ["ssm.*", "mlp.*"],
      keep: ["mlp.down"],
      keepLayers: [6],
      keepBefore: [{ kind: "mamba", next: "attention" }],
    });
    const least = await parseRecipe('{id: least, cast: ["*"]}', "r.yaml", roles);
    expect(least).toMatchObject({ keepEnds: 0, keep: [], keepLayers: [], keepBefore: [] });
  });

  it("decides by pattern, ends, layers and neighbours", async () => {
    const path = join(mkdtempSync(join(tmpdir(), "recipe-")), "careful.yaml");
    writeFileSync(path, CAREFUL);
    expect(await cast({ dtype: "fp8-e4m3", recipe: path })).toEqual(
      ["ssm.in@2", "ssm.out@2", "mlp.up@1", "mlp.up@5", "mlp.up@8"].sort(),
    );
    writeFileSync(path, CAREFUL.replace("[6]", "[]"));
    expect(await cast({ dtype: "fp8-e4m3", recipe: path })).not.toContain("ssm.in@6"); // before attention
    writeFileSync(path, CAREFUL.replace("[6]", "[]").replace("true", "false"));
    expect(await cast({ dtype: "fp8-e4m3", recipe: path })).toContain("ssm.in@6");
    writeFileSync(path, CAREFUL.replace("[6]", "[10]"));
    expect(await code(() => cast({ dtype: "fp8-e4m3", recipe: path }))).toMatchObject({
      code: "RECIPE_INVALID",
      message: "recipe careful keeps layer 10; the model has layers 0 to 9",
    });
    writeFileSync(path, "id: a\ncast: [ssm.in, norm]\n");
    expect(await code(() => cast({ dtype: "fp8-e4m3", recipe: path }))).toMatchObject({
      code: "RECIPE_INVALID",
      message: expect.stringContaining("casts norm, a vector"),
    });
    expect(await cast({ dtype: "f32", recipe: path })).toContain("norm");
  });

  it.each([
    ["an unknown key", "id: a\ncast: [mlp.up]\ncats: [mlp.down]\n", /^line 3: .*cats/],
    ["a wrong type", "id: a\nkeep_ends: two\ncast: [mlp.up]\n", /^line 2: keep_ends: /],
    ["a negative count", "id: a\ncast: [mlp.up]\nkeep_ends: -1\n", /^line 3: keep_ends: /],
    [
      "an unknown role",
      "id: a\ncast:\n  - mlp.up\n  - mlp.sideways\n",
      /^line 4: cast: mlp.sideways names no role/,
    ],
    ["an unknown role kept", "id: a\ncast: [mlp.up]\nkeep: [mtp.*]\n", /^line 3: keep: mtp.\* names no role/],
    ["a glob that is none", "id: a\ncast: [mlp.up, 'mlp.u*']\n", /^line 2: cast.1: expected a role/],
    ["nothing cast", "id: a\ncast: []\n", /^line 2: cast: /],
    ["no id", "cast: [mlp.up]\n", /^line 1: id: /],
    ["a key twice", "id: a\ncast: [mlp.up]\ncast: [mlp.down]\n", /^line 3: .*unique/],
    ["text that is no YAML", "id: a\ncast: [mlp.up\n", /^line \d: /],
    ["no map", "- mlp.up\n", /^line 1: /],
    ["an empty file", "", /./],
    ["aliases", "id: a\ncast: &x [mlp.up]\nkeep: *x\n", /aliases/],
    ["a novel", `id: a\ncast: [mlp.up]\n${"#".repeat(270_000)}`, /more than 262144/],
  ])("with %s is refused by its line", async (_, text, message) => {
    expect(await code(() => parseRecipe(text, "r.yaml", roles))).toMatchObject({
      code: "RECIPE_INVALID",
      exit: 2,
      at: { file: "r.yaml" },
      message: expect.stringMatching(message),
    });
  });
});
