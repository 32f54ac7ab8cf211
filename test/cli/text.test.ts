/** What people read. */
import { describe, expect, it } from "vitest";
import { inspect } from "../../src/api/inspect.ts";
import { loadCommands } from "../../src/cli/commands/index.ts";
import { version } from "../../src/version.ts";
import { CONVERTED, DIFFERENT, METRICS, run, VERIFIED } from "../support/fake-library.ts";
import { ggufGolden } from "../support/goldens.ts";

const commands = await loadCommands();

const shown = async (line: string, over = {}) => (await run(line, { over })).stdout;

describe("summaries", () => {
  it("convert", async () => {
    expect(await shown("convert a b.isologit")).toMatchInlineSnapshot(`
      "within: wrote out.isologit, the same model as ./source within the limits of its
      recast
      format  hf to packed, 3.0 MiB
      values  40 of 182 tensors recast
      checks  cover same, bytes within, logits within, KL mean 1.2e-4 nats,
              top-1 98.44 %, controls not run
      time    1.50 s
              --verbose shows every measure
      "
    `);
    expect(await shown("convert a b.isologit --verbose")).toMatchInlineSnapshot(`
      "within: wrote out.isologit, the same model as ./source within the limits of its
      recast

      wrote        out.isologit
      format       hf to packed, 3.0 MiB
      source       ./source
      values       recast: each value is rounded once to its new dtype
      root         sha256:aaaa, source
                   sha256:bbbb, written
      read         6.0 MiB
      written      3.0 MiB
      time         1.50 s, 2.0 MiB/s written
      peak memory  220.0 MiB resident
      plan         plan-1

      verdict  within: the same model within the limits of its recast
      run on   wasm, 2 threads, SIMD
      cover    same, 182 roles, 1,234,567 elements, 182 tensors
      bytes    within, 182 roles, 40 recast, 3.0 MiB, 0 different
      logits   within, 64 tokens, max |Δlogit| 0.0312, relative L2 0.00417,
               KL mean 1.2e-4 nats, KL p99 0.00201 nats, top-1 98.44 %,
               NLL A 6.2381 nats/token, NLL B 6.2402 nats/token,
               wiring 2.4e-7 of at most 1.0e-5 relative L2, controls not run
      limits   KL mean at most 0.02 nats, top-1 at least 95 %,
               wiring at most 1.0e-5 relative L2
      "
    `);
  });

  it("convert, exact and not verified", async () => {
    const exact = {
      ...CONVERTED,
      exact: true,
      source: { ...CONVERTED.source, root: null },
      destination: { ...CONVERTED.destination, root: null },
      verification: null,
    };
    const over = { convert: async () => exact };
    expect(await shown("convert a b.isologit --verify off", over)).toMatchInlineSnapshot(`
      "not verified: wrote out.isologit, because of --verify off
      format  hf to packed, 3.0 MiB
      values  every bit is unchanged
      time    1.50 s
              --verbose shows every measure
      "
    `);
  });

  it("convert, different", async () => {
    const staged = { ...CONVERTED, verification: DIFFERENT, staged: "out.isologit.partial" };
    expect(await shown("convert a b.isologit", { convert: async () => staged })).toMatchInlineSnapshot(`
      "different: out.isologit was not written: it is not the same model as ./source
      format  hf to packed, 3.0 MiB
      values  40 of 182 tensors recast
      checks  cover same, bytes within, logits within, KL mean 1.2e-4 nats,
              top-1 98.44 %, controls not run
      why     the first divergence is in layer 3 (attention), door attn.q: 1
              suspect
              model.layers.3.q_proj.weight
      found   chat_template.jinja differs
              the weights are untrained
      time    1.50 s
              --verbose shows every measure
      "
    `);
  });

  it("verify, different", async () => {
    const over = { verify: async () => DIFFERENT };
    expect(await shown("verify a b", over)).toMatchInlineSnapshot(`
      "different: b is not the same model as a
      values  40 of 182 tensors recast
      checks  cover same, bytes within, logits within, KL mean 1.2e-4 nats,
              top-1 98.44 %, controls not run
      why     the first divergence is in layer 3 (attention), door attn.q: 1
              suspect
              model.layers.3.q_proj.weight
      found   chat_template.jinja differs
              the weights are untrained
              --verbose shows every measure
      "
    `);
    expect(await shown("verify a b --verbose", over)).toMatchInlineSnapshot(`
      "different: b is not the same model as a

      A     a
      B     b
      root  sha256:aaaa, A
            sha256:bbbb, B

      verdict           different: not the same model
      run on            wasm, 2 threads, SIMD
      cover             same, 182 roles, 1,234,567 elements, 182 tensors
      bytes             within, 182 roles, 40 recast, 3.0 MiB, 0 different
      logits            within, 64 tokens, max |Δlogit| 0.0312, relative L2 0.00417,
                        KL mean 1.2e-4 nats, KL p99 0.00201 nats, top-1 98.44 %,
                        NLL A 6.2381 nats/token, NLL B 6.2402 nats/token,
                        wiring 2.4e-7 of at most 1.0e-5 relative L2, controls not run
      limits            KL mean at most 0.02 nats, top-1 at least 95 %,
                        wiring at most 1.0e-5 relative L2
      first divergence  layer 3 (attention), door attn.q
                        model.layers.3.q_proj.weight
      difference        chat_template.jinja differs
      remark            the weights are untrained
      "
    `);
  });

  it("verify by bytes", async () => {
    const report = {
      ...VERIFIED,
      verdict: "same",
      backend: null,
      device: null,
      rungs: VERIFIED.rungs.slice(0, 2),
      limits: {},
      roots: { a: "sha256:aaaa", b: "sha256:aaaa" },
    };
    const over = { verify: async () => report };
    expect(await shown("verify a b --verify bytes", over)).toMatchInlineSnapshot(`
      "same: b is the same model as a
      values  40 of 182 tensors recast
      checks  cover same, bytes within
              --verbose shows every measure
      "
    `);
  });

  it("with --quiet the verdict alone", async () => {
    expect(await shown("convert a b.isologit --quiet")).toBe("within\n");
    expect(await shown("verify a b --quiet", { verify: async () => DIFFERENT })).toBe("different\n");
    const unverified = { convert: async () => ({ ...CONVERTED, verification: null }) };
    expect(await shown("convert a b.isologit --verify off --quiet", unverified)).toBe("not verified\n");
  });

  it("of a verdict begin with it and fit 80 columns; a good one has at most ten lines", async () => {
    const path = `/models/${"a-long-name/".repeat(12)}`;
    const { source, destination } = CONVERTED;
    const findings = Array.from({ length: 40 }, (_, n) => ({
      ...DIFFERENT.findingDetails[0]!,
      message: `remark ${n} ${"of many words ".repeat(3)}`,
    }));
    const verification = { ...DIFFERENT, findingDetails: findings };
    const long = { ...CONVERTED, verification, source: { ...source, address: path }, destination };
    const text = await shown("convert a b.isologit", { convert: async () => long });
    const lines = text.trimEnd().split("\n");
    expect(lines[0]).toMatch(/^different: out\.isologit/);
    expect(lines.filter((line) => line.length > 80 && !line.includes(path))).toEqual([]);
    expect((await shown("convert a b.isologit")).trimEnd().split("\n").length).toBeLessThanOrEqual(10);
  });

  it("inspect", async () =>
    expect(await shown("inspect a --tensors")).toMatchInlineSnapshot(`
      "format        hf
      dialect       hf
      family        nemotron-h
      pattern       M-M*-
      layers        2 mamba, 1 attention, 2 mlp
      sizes         hidden 64
      vocabulary    500 tokens, and 12 rows of padding
      parameters    8,101,234,567 (8.10 billion)
      size          15.1 GiB
      quantization  none
      side files    config.json, tokenizer.json

      dtype  tensors     bytes    share
      BF16        40  15.1 GiB  100.0 %
      F32          4   2.0 KiB    0.0 %

      dtype  shape  layer  role   name
      F32        8      0  ssm.d  backbone.D
      "
    `));

  it("plan", async () =>
    expect(await shown("plan a b.isologit --verbose")).toMatchInlineSnapshot(`
      "plan         plan-1
      source       hf, 6.0 MiB, ./source
      destination  packed, 3.0 MiB, out.isologit
      values       recast: some values are rounded
      reads        6.0 MiB
      writes       3.0 MiB in 1 file
      peak memory  64.0 MiB of buffers
      warning      12 padded rows stay: no file says the true vocabulary

      dtype  becomes    tensors     bytes
      BF16   unchanged        1  64.0 KiB
      BF16   F8_E4M3          1  18.5 KiB

      role    becomes    tensors  why
      embed   unchanged        1  recipe nemotron-h does not name it
      ssm.in  F8_E4M3          1  recipe nemotron-h casts it

        bytes  file
      3.0 MiB  (the destination itself)

      dtype               shape     bytes  name
      BF16             512 x 64  64.0 KiB  backbone.embeddings.weight
      BF16 to F8_E4M3  296 x 64  18.5 KiB  backbone.layers.0.mixer.in_proj.weight  from layers.0.in_proj
      "
    `));

  it("logits", async () =>
    expect(await shown("logits a")).toMatchInlineSnapshot(`
    "wrote   logits.safetensors
    logits  F32, 16 tokens x 131,072 vocabulary entries
    run on  wasm, 2 threads, SIMD
    time    0.50 s, 32.0 tokens/s
    "
  `));

  it("importance", async () =>
    expect(await shown("importance a")).toMatchInlineSnapshot(`
    "wrote      importance.safetensors
    prompts    2 prompts, 57 tokens; weights read 1 time, 867.9 KiB
    stability  0.968, rank correlation of the layers' mse between two halves of the prompts
    run on     wasm, 2 threads, SIMD
    time       4.25 s

    layer  kind     mse     kl  logits nmse  cosine  rank
        0  mamba  0.487  0.501       0.0647   0.258   1.0
        1  mlp    0.487  0.501       0.0647   0.258   0.0
    "
  `));

  it("importance --cheap", async () =>
    expect(await shown("importance a --cheap")).toMatchInlineSnapshot(`
    "wrote    importance.safetensors
    prompts  2 prompts, 57 tokens; weights read 1 time, 867.9 KiB
    run on   wasm, 2 threads, SIMD
    time     4.25 s

    layer  kind   mse  kl  logits nmse  cosine  rank
        0  mamba    -   -            -   0.258     -
        1  mlp      -   -            -   0.258     -
    "
  `));

  it("generate: text as it comes, without what would steer a terminal; the rate is talk", async () => {
    const { stdout, stderr } = await run("generate a --ids 1,2");
    expect(stdout).toBe("a lamp\n\\u{1b}[31m burns\n");
    expect(stderr).toBe(
      "wasm, 2 threads, SIMD: 2 tokens read in 0.25 s; 3 tokens written in 0.50 s, 4.00 tokens/s; " +
        "stopped at the end token\n",
    );
    expect((await run("generate a --ids 1 --quiet")).stderr).toBe("");
    const json = await run("generate a --ids 1 --json");
    expect(json.json()).toMatchObject({ ids: [7, 8, 9], stopped: "eos", kept: { perTokenBytes: 512 } });
  });

  it("doctor", async () =>
    expect(await shown("doctor --kernels")).toMatchInlineSnapshot(`
      "node       v20.20.2
      platform   linux x64
      cores      2 cores
      memory     8.0 GiB
      disk free  100.0 GiB
      left over  no unfinished files

      backend           device
      wasm     ready    2 threads, software
      webgpu   missing  no Vulkan loader

      wasm, 2 threads
      kernel  cases  worst error   bound         speed
      linear     12       1.2e-6  4.0e-6  71.4 GFLOP/s  ok
      ssd         9        0.005  1.0e-5     3 GFLOP/s  out of bound
      "
    `));

  it("formats", async () =>
    expect(await shown("formats")).toMatchInlineSnapshot(`
    "format  read  written  endings    what it is
    hf      yes   yes                 Hugging Face folder
    packed  yes   yes      .isologit  one packed file
    nemo1   yes   no                  .nemo archive

    family      dialects  recipes
    nemotron-h  hf        nemotron-h, all-linear

    recast    written to
    keep      hf, packed
    fp8-e4m3  hf, packed

    backends  wasm
    "
  `));
});

it("controls are counted, and those with nothing to confuse are not", async () => {
  const controls = [{ caught: true }, { caught: null }, { caught: false }];
  const rungs = [
    { rung: "logits", verdict: "unproven", metrics: { ...METRICS, controls, routing: { flips: 2 } } },
  ];
  const text = await shown("verify a b --verbose", { verify: async () => ({ ...VERIFIED, rungs }) });
  expect(text).toContain("1 of 2 controls caught");
  expect(text).toContain("2 routing flips");
});

it("says which settings and which roles a rung holds against a checkpoint, the first few of many", async () => {
  const settings = ["eps is 1e-6, not 1e-5", "heads is 8, not 4"];
  const message = "the first differing element is 7";
  const differences = [0, 1, 2, 3, 4, 5].map((n) => ({ role: `main.${n}.gain`, tensors: [], message }));
  const rungs = [
    { rung: "cover", verdict: "different", metrics: { roles: 9, settings } },
    { rung: "bytes", verdict: "different", metrics: { roles: 9, differences } },
  ];
  const report = { ...VERIFIED, rungs };
  expect(
    (await shown("verify a b", { verify: async () => report })).match(/eps is|heads is|main\.\d/g),
  ).toHaveLength(3);
  const all = await shown("verify a b --verbose", { verify: async () => report });
  expect(all).toContain(`
cover    different, 9 roles
         eps is 1e-6, not 1e-5
         heads is 8, not 4
bytes    different, 9 roles
         main.0.gain: ${message}
         main.1.gain: ${message}
         main.2.gain: ${message}
         main.3.gain: ${message}
         main.4.gain: ${message}
         main.5.gain: ${message}
`);
});

it("nothing is wider than 100 columns, nor coloured, where stdout is a file", async () => {
  const root = `sha256:${"a".repeat(64)}`;
  const long = {
    ...VERIFIED,
    roots: { a: root, b: root.replaceAll("a", "b") },
    findingDetails: DIFFERENT.findingDetails.map((one) => ({
      ...one,
      message: "one word after the other ".repeat(9),
    })),
  };
  const lines = [
    await shown("verify a b", { verify: async () => long }),
    ...(await Promise.all(commands.map(({ name }) => shown(`${name} --help`)))),
    await shown("--help"),
  ].flatMap((text) => text.split("\n"));
  expect(lines.filter((line) => line.length > 100 || line.includes("\u001b"))).toEqual([]);
});

it("a long pattern is broken, not cut", async () => {
  const pattern = "M-".repeat(60);
  const base = JSON.parse(await shown("inspect a --json"));
  const text = await shown("inspect a", { inspect: async () => ({ ...base, pattern }) });
  expect(text.replaceAll(/\s/g, "")).toContain(pattern);
});

describe("help", () => {
  it("lists every command, its examples, and what a status means", async () => {
    const help = await shown("--help");
    for (const { name } of commands) expect(help).toContain(`\n  ${name} `);
    expect(help).toContain("Exit status:");
    expect((await run("--help")).status).toBe(0);
  });

  it.each(commands)("$name shows its flags and examples", async ({ name, examples }) => {
    const { status, stdout, stderr } = await run(`${name} --help`);
    expect([status, stderr]).toEqual([0, ""]);
    for (const example of examples) expect(stdout).toContain(`  isologit ${example}\n`);
    expect((await run(`help ${name}`)).stdout).toBe(stdout);
  });

  it.each(commands)("$name's examples are commands that work", async ({ examples }) => {
    for (const example of examples) {
      expect((await run(example.replace(/ > .*/, ""))).status).toBeLessThan(2);
    }
  });

  it("prints the version of the package", async () => {
    const { status, stdout } = await run("--version");
    expect([status, stdout]).toEqual([0, `${version}\n`]);
    expect(stdout).toMatch(/^\d+\.\d+\.\d+/);
  });
});

describe("GGUF", () => {
  it("inspect tells the family, what the file says of itself, and layers by kind", async () => {
    const text = await shown("inspect a", { inspect: () => inspect(ggufGolden("tiny-q8_0.gguf")) });
    expect(text).toMatchInlineSnapshot(`
      "format        gguf
      family        nemotron-h
      architecture  nemotron_h
      name          tiny
      file type     Q8_0
      context       1,048,576 tokens
      tokenizer     gpt2, pre-tokenizer gpt-2, 512 tokens, chat template of 145 B
      pattern       M-M*-M*-M
      layers        4 mamba, 2 attention, 3 mlp
      sizes         hidden 64, MLP 96, attention heads 4, KV heads 2, per head 16,
                    Mamba heads 8, per Mamba head 16, Mamba groups 2, state 16
      vocabulary    512 tokens
      parameters    248,800
      size          272.8 KiB
      quantization  stores 24 Q8_0, blocks of 32, scaledTensors 0

      dtype  tensors      bytes   share
      Q8_0        24  252.9 KiB  92.7 %
      F32         34   19.9 KiB   7.3 %
      "
    `);
  });

  it("of an unknown family, too", async () => {
    const known = await inspect(ggufGolden("tiny-q8_0.gguf"));
    const layers = { mamba: 0, attention: 0, mlp: 0, moe: 0 };
    const report = { ...known, family: null, dialect: null, pattern: null, dims: null, layers };
    const text = await shown("inspect a", { inspect: async () => report });
    expect(text.split("\n").slice(0, 6).join("\n")).toMatchInlineSnapshot(`
      "format        gguf
      family        unknown
      architecture  nemotron_h
      name          tiny
      file type     Q8_0
      layers        9"
    `);
  });

  it("plan with types that a search found", async () => {
    const base = JSON.parse(await shown("plan a b.isologit --json"));
    const point = (bits: number, klMean: number, types: object, kind?: string) => ({
      ...{ cast: [], bytes: bits * 1e5, bitsPerWeight: bits, klMean, klP99: 10 * klMean, top1: 1, types },
      ...(kind !== undefined && { kind }),
    });
    const search = {
      ...{ recipe: {}, tokens: 64, readings: 3, backend: "wasm", device: "2 threads", limits: { bits: 6 } },
      layers: [],
      tensors: [
        {
          tensor: "blk.0.ffn_up.weight",
          role: "mlp.up",
          layer: 0,
          smallest: "Q4_K",
          klMean: 0.01,
          dtype: "Q6_K",
        },
        {
          tensor: "output.weight",
          role: "head",
          layer: null,
          smallest: "Q4_K",
          klMean: 0.001,
          dtype: "Q4_K",
        },
      ],
      points: [point(8.5, 1e-4, { Q8_0: 2 }, "q8_0"), point(5.5, 0.004, { Q6_K: 1, Q4_K: 1 })],
      chosen: 1,
    };
    const text = await shown("plan a b.isologit", { plan: async () => ({ ...base, search }) });
    expect(text.slice(text.indexOf("recipe "))).toMatchInlineSnapshot(`
      "recipe       auto: types of 2 tensors, 5.500 bits a weight, KL 0.004; from 64 tokens on wasm, weights read 3 times
      warning      12 padded rows stay: no file says the true vocabulary

      dtype  becomes    tensors     bytes
      BF16   unchanged        1  64.0 KiB
      BF16   F8_E4M3          1  18.5 KiB

      role    becomes    tensors  why
      embed   unchanged        1  recipe nemotron-h does not name it
      ssm.in  F8_E4M3          1  recipe nemotron-h casts it

      tensor               smallest  KL of it  chosen
      blk.0.ffn_up.weight  Q4_K          0.01  Q6_K
      output.weight        Q4_K         0.001  Q4_K

          bytes   bits      KL  top-1          tensors
      830.1 KiB  8.500  1.0e-4      1  q8_0    Q8_0 2
      537.1 KiB  5.500   0.004      1  chosen  Q4_K 1, Q6_K 1

        bytes  file
      3.0 MiB  (the destination itself)
      "
    `);
  });
});
