/** Recipes by name, and the JSON Schema of recipe files. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { families } from "../../src/families/index.ts";
import { decideRole, policyOf } from "../../src/quantization/policy.ts";
import { type LayerAt, recipeJsonSchema } from "../../src/quantization/recipe.ts";

const family = families[0]!;
const KIND = { M: "mamba", "*": "attention", "-": "mlp", E: "moe" } as const;
const layers: readonly LayerAt[] = [..."MM-EM*-M-E"].map((letter, index) => ({
  ...{ stack: "main", index, kind: KIND[letter as keyof typeof KIND], of: 1 },
}));

/** Roles and layers that a recipe casts to FP8, as `ssm.in 0 1`. */
async function castBy(recipe: string) {
  const policy = await policyOf({ dtype: "fp8-e4m3", recipe }, family);
  return family.roles.flatMap((spec) => {
    const own = layers.filter(({ kind }) => spec.on !== "every" && spec.on?.includes(kind));
    const cast = own.filter((layer) => decideRole({ spec, layer }, "BF16", policy, { layers }).to !== "keep");
    return cast.length === 0 ? [] : [`${spec.role} ${cast.map(({ index }) => index).join(" ")}`];
  });
}

describe("a named recipe follows its source", () => {
  const experts = ["moe.up 3 9", "moe.down 3 9", "moe.shared.up 3 9", "moe.shared.down 3 9"];
  it.each([
    [
      "paper",
      [
        "ssm.in 4 7",
        "ssm.out 4 7",
        "attn.q 5",
        "attn.k 5",
        "attn.v 5",
        "attn.o 5",
        "mlp.up 2 6",
        "mlp.down 2 6",
      ],
    ],
    ["nano-9b-v2", ["ssm.in 0 1 4 7", "ssm.out 0 1 4 7", "mlp.up 2 6 8", "mlp.down 2 6 8"]],
    ["nano-30b", ["ssm.in 0 1 7", "ssm.out 0 1 7", ...experts]],
    ["super", ["ssm.in 0 1 4 7", "ssm.out 0 1 4 7", ...experts]],
  ])("%s", async (recipe, expected) => {
    expect(new Set(await castBy(recipe))).toEqual(new Set(expected));
  });

  it("and names it", () => {
    for (const { id, source } of family.recipes) expect(source, id).toMatch(/\w/);
  });
});

it("the reason for each role names the recipe, the layer or the kind", async () => {
  const policy = await policyOf({ dtype: "fp8-e4m3", recipe: "nano-30b" }, family);
  const whyOf = (role: string, layer: LayerAt | null) =>
    decideRole({ spec: family.roles.find((spec) => spec.role === role)!, layer }, "BF16", policy, { layers })
      .why;
  expect(whyOf("ssm.in", layers[0]!)).toBe("recipe nano-30b casts it");
  expect(whyOf("ssm.in", layers[4]!)).toBe("recipe nano-30b keeps mamba layers before attention");
  expect(whyOf("attn.q", layers[5]!)).toBe("recipe nano-30b does not name it");
  expect(whyOf("norm", layers[0]!)).toBe("recipe nano-30b does not name it");
});

it("docs/recipe.schema.json is the schema of recipe files", async () => {
  const stored = readFileSync(new URL("../../docs/recipe.schema.json", import.meta.url), "utf8");
  expect(JSON.parse(stored)).toEqual(await recipeJsonSchema());
});
