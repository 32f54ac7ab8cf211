import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { describe, expect, it } from "vitest";
import { type Adapter, DAWN_MISSING, findAdapters } from "../../kernels/backend/adapters.ts";
import { dawnAddress, INSTALL_DAWN } from "../../kernels/backend/dawn.ts";
import {
  chooseAdapter,
  gpuRows,
  openEveryBackend,
  probeBackends,
  selectBackend,
} from "../../kernels/backend/select.ts";
import {
  adapterMissingReason,
  type Machine,
  thisMachine,
  vulkanMissingReason,
} from "../../kernels/backend/vulkan.ts";
import { workFolder } from "../support/goldens.ts";
import { testAdapter } from "../support/kernels/software-gpu.ts";

const work = workFolder();
const options = { threads: 1, memoryBytes: 1 << 20 };

interface Parts {
  readonly libraries?: readonly string[];
  readonly files?: readonly string[];
  readonly env?: Machine["env"];
}

/** A Linux machine that has these libraries and files. */
const linux = ({ libraries = [], files = [], env = {} }: Parts): Machine => ({
  platform: "linux",
  env,
  loads: (library) => libraries.includes(library),
  exists: (path) => files.includes(path),
  list: (folder) =>
    files.filter((file) => file.startsWith(`${folder}/`)).map((file) => file.slice(folder.length + 1)),
});

const [LOADER, NVIDIA] = ["libvulkan.so.1", "libGLX_nvidia.so.0"];
const [ICD, DEVICE] = ["/usr/share/vulkan/icd.d/nvidia_icd.json", "/dev/nvidiactl"];

describe("the reason why there is no GPU, in one line", () => {
  it.each<[string, Parts, RegExp | null]>([
    ["no loader", { files: [ICD] }, /^the Vulkan loader libvulkan\.so\.1 is not installed$/],
    ["no driver file", { libraries: [LOADER] }, /^no Vulkan driver file \(icd\.d\/\*\.json\) is installed$/],
    ["a driver file", { libraries: [LOADER], files: [ICD] }, null],
    [
      "a file that the environment names",
      { libraries: [LOADER], files: ["/x.json"], env: { VK_DRIVER_FILES: "/x.json" } },
      null,
    ],
    [
      "only files that it does not name",
      { libraries: [LOADER], files: [ICD], env: { VK_DRIVER_FILES: "/x.json" } },
      /no Vulkan driver file/,
    ],
    [
      "a container that may only compute",
      { libraries: [LOADER], files: [DEVICE] },
      /NVIDIA_DRIVER_CAPABILITIES=all, or graphics/,
    ],
  ])("%s", (_, parts, reason) => {
    if (reason === null) expect(vulkanMissingReason(linux(parts))).toBeNull();
    else expect(vulkanMissingReason(linux(parts))).toMatch(reason);
  });

  it("names a driver without GPUs, and the library that is missing", () => {
    const parts = { libraries: [LOADER], files: [ICD] };
    expect(adapterMissingReason(linux(parts))).toContain(`named by ${ICD} offer no GPU`);
    expect(adapterMissingReason(linux({ ...parts, files: [ICD, DEVICE] }))).toMatch(
      /libGLX_nvidia\.so\.0 is not.*graphics/,
    );
    const whole = { libraries: [LOADER, NVIDIA], files: [ICD, DEVICE] };
    expect(adapterMissingReason(linux(whole))).toContain("offer no GPU");
  });

  it("without a Vulkan loader Dawn is not loaded and prints nothing", async () => {
    expect(await findAdapters(linux({}))).toEqual({ found: [], reason: expect.stringContaining("loader") });
  });

  it("other platforms need no Vulkan", () => {
    const mac: Machine = { ...linux({}), platform: "darwin" };
    expect(vulkanMissingReason(mac)).toBeNull();
    expect(adapterMissingReason(mac)).toBe("Dawn finds no GPU that it can use");
  });
});

describe("without the npm package webgpu", () => {
  const whole = linux({ libraries: [LOADER], files: [ICD] });

  it("the reason is that or what else is missing, and the command that installs it is told", async () => {
    const offered = await findAdapters(whole, null);
    expect(offered).toEqual({ found: [], reason: DAWN_MISSING, install: INSTALL_DAWN });
    expect(gpuRows(offered)[0]!.reason).toBe(`${DAWN_MISSING}; this installs it: ${INSTALL_DAWN}`);
    const both = await findAdapters(linux({}), null);
    expect(gpuRows(both)[0]!.reason).toMatch(
      /^the Vulkan loader .* is not installed; the npm package webgpu is/,
    );
    expect(gpuRows(both)[0]!.reason).toContain(INSTALL_DAWN);
    for (const adapters of [offered, both])
      expect(() => chooseAdapter(adapters, "")).toThrow(
        expect.objectContaining({
          code: "NOT_AVAILABLE",
          next: `run \`${INSTALL_DAWN}\`, or use \`backend\` wasm`,
        }),
      );
  });

  it("the command installs a version that this package accepts", () => {
    const { peerDependencies, devDependencies } = JSON.parse(
      readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
    );
    expect(peerDependencies.webgpu).toBe(devDependencies.webgpu);
    expect(peerDependencies.webgpu).toMatch(new RegExp(`^\\^${INSTALL_DAWN.split("@")[1]}\\.`));
  });

  it("a global package of npm is found, wherever npm says that its prefix is", () => {
    const prefix = join(work, "prefix");
    for (const [platform, lib] of [
      ["linux", "lib"],
      ["win32", ""],
    ] as const) {
      const machine = { ...whole, platform, env: { npm_config_global_prefix: join(prefix, platform) } };
      expect(dawnAddress(machine, null)).toBeNull();
      const folder = join(prefix, platform, lib, "node_modules/webgpu");
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, "package.json"), '{"name": "webgpu", "main": "index.js"}');
      writeFileSync(join(folder, "index.js"), "");
      expect(dawnAddress(machine, null)).toBe(pathToFileURL(join(folder, "index.js")).href);
    }
    expect(dawnAddress(thisMachine)).toContain("/node_modules/webgpu/"); // the one of the tests
  });
});

describe("the choice of an adapter", () => {
  const adapter = (name: string, software: boolean) => ({ name, driver: "1.0", software }) as Adapter;
  const [lavapipe, arc, h100] = [
    adapter("llvmpipe (LLVM 19)", true),
    adapter("Arc A770", false),
    adapter("NVIDIA H100", false),
  ];
  const adapters = { found: [lavapipe, arc, h100], reason: null };

  it("uses a part of the name, hardware first", () => {
    expect(chooseAdapter(adapters, "")).toBe(arc);
    expect(chooseAdapter(adapters, "h100")).toBe(h100);
    expect(chooseAdapter(adapters, "llvm")).toBe(lavapipe);
    expect(chooseAdapter({ found: [lavapipe], reason: null }, "")).toBe(lavapipe);
  });

  it("lists the other adapters, or gives the reason why there is none", () => {
    const complaint = {
      code: "NOT_AVAILABLE",
      message: expect.stringContaining("llvmpipe (LLVM 19), Arc A770, NVIDIA H100"),
    };
    expect(() => chooseAdapter(adapters, "RTX")).toThrow(expect.objectContaining(complaint));
    const nothing = { found: [], reason: "the Vulkan loader is not installed" };
    expect(() => chooseAdapter(nothing, "")).toThrow("backend webgpu: the Vulkan loader is not installed");
  });

  it("one row for each adapter, and one row if there is none", () => {
    expect(gpuRows(adapters).map(({ device, software, available }) => [device, software, available])).toEqual(
      [
        ["llvmpipe (LLVM 19)", true, true],
        ["Arc A770", false, true],
        ["NVIDIA H100", false, true],
      ],
    );
    expect(gpuRows({ found: [], reason: "why" })).toEqual([
      {
        id: "webgpu",
        available: false,
        device: null,
        driver: null,
        software: false,
        extensions: [],
        reason: "why",
      },
    ]);
  });
});

describe("on this machine, with the tests' adapter", () => {
  it("lists the backends", async () => {
    const { name, software } = await testAdapter();
    expect(await probeBackends()).toEqual([
      expect.objectContaining({ id: "wasm", available: true, software: true, reason: null }),
      expect.objectContaining({ id: "webgpu", available: true, device: name, software, reason: null }),
    ]);
  });

  it("auto never uses a software adapter, and gives the reason for WASM", async () => {
    const { name, software } = await testAdapter();
    await using backend = await selectBackend({ ...options, backend: "auto" });
    if (!software) return expect(backend.id).toBe("webgpu");
    const device = `WASM SIMD, 1 thread (no GPU: ${name} computes on a processor)`;
    expect(backend).toMatchObject({ id: "wasm", device });
  });

  it("the environment can ask for plain shaders", async () => {
    await testAdapter();
    const [adapter] = (await findAdapters()).found;
    expect(adapter!.extensions).toEqual(["subgroups"]);
    const env = { ...process.env, ISOLOGIT_SHADERS: "plain" };
    expect((await findAdapters({ ...thisMachine, env })).found).toEqual([{ ...adapter, extensions: [] }]);
    const wrong = findAdapters({ ...thisMachine, env: { ISOLOGIT_SHADERS: "fancy" } });
    await expect(wrong).rejects.toMatchObject({ code: "USAGE", message: expect.stringContaining('"fancy"') });
  });

  it("opens the adapter by backend or by name", async () => {
    const { name } = await testAdapter();
    for (const choice of [
      { backend: "webgpu" },
      { backend: "auto", device: name.slice(0, 5).toUpperCase() },
    ]) {
      await using backend = await selectBackend({ ...options, ...choice });
      expect(backend).toMatchObject({ id: "webgpu", device: expect.stringContaining(name) });
    }
  });

  it("refuses absent, unknown and contradictory choices", async () => {
    await testAdapter();
    const refused = (choice: { backend: string; device?: string }, code: string) =>
      expect(selectBackend({ ...options, ...choice })).rejects.toMatchObject({ code });
    await refused({ backend: "webgpu", device: "no such GPU" }, "NOT_AVAILABLE");
    await refused({ backend: "auto", device: "no such GPU" }, "NOT_AVAILABLE");
    await refused({ backend: "wasm", device: "any" }, "USAGE");
    await refused({ backend: "cuda" }, "USAGE");
  });

  it("opens every backend in turn", async () => {
    await testAdapter();
    const ids: string[] = [];
    for await (const backend of openEveryBackend(options)) {
      ids.push(backend.id);
      await backend[Symbol.asyncDispose]();
    }
    expect(ids).toEqual(["wasm", "webgpu"]);
  });
});
