import { cpSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { bridge } from "../../formats/bridge/format.ts";
import { nemo2 } from "../../formats/nemo2/format.ts";
import { fileStore } from "../../src/io/file.ts";
import { digestsOf, watchedStore } from "../support/content.ts";
import { golden, workFolder } from "../support/goldens.ts";

const work = workFolder();
const tiny = await nemo2.read(await fileStore(golden("nemo2-tiny")));

/** A copy of the golden folder, changed. */
async function changed(name: string, change: (folder: string) => void) {
  const folder = join(work, name);
  cpSync(golden("nemo2-tiny"), folder, { recursive: true });
  change(folder);
  return fileStore(folder);
}

describe("a real NeMo 2 folder", () => {
  it("is one model, whatever the ranks that saved it", async () => {
    const other = await nemo2.read(await fileStore(golden("nemo2-tp2")));
    expect(await digestsOf(other)).toEqual(await digestsOf(tiny));
    expect(tiny.tensors).toHaveLength(86);
    expect(tiny.tensors.every(({ name }) => !name.startsWith("module."))).toBe(true);
  });

  it("shows config and tokenizer", () => {
    expect(tiny.config).toMatchObject({
      _target_: "nemo.collections.llm.gpt.model.ssm.NemotronHConfig8B",
      hybrid_override_pattern: "M-M*-M-*M",
      vocab_size: 500,
    });
    expect(tiny.sidecars.map(({ path }) => path)).toEqual(["tokenizer.json", "tokenizer_config.json"]);
    expect(tiny.sidecars[0]?.span.file).toBe("context/nemo_tokenizer/tokenizer.json");
  });

  it("shows what NeMo itself loads, or that it could not be read", async () => {
    expect(tiny.loadedConfig).toMatchObject({
      file: "context/io.json",
      config: { hidden_size: 64, vocab_size: 500 },
    });
    expect(tiny.remarks).toBeUndefined();
    const store = await changed("io", (folder) => writeFileSync(join(folder, "context/io.json"), "{}"));
    const { loadedConfig, remarks } = await nemo2.read(store);
    expect(loadedConfig).toBeUndefined();
    expect(remarks).toMatchObject([
      { rule: "context-unread", severity: "warning", at: { file: "context/io.json" } },
    ]);
  });

  it("gives what was passed where nobody wrote model.yaml", async () => {
    const store = await changed("no-yaml", (folder) => rmSync(join(folder, "context/model.yaml")));
    const { config, sidecars } = await nemo2.read(store);
    expect(config._target_).toBe("nemo.collections.llm.gpt.model.ssm.NemotronHConfig8B");
    expect(config.hidden_size).toBe(64);
    expect(sidecars).toHaveLength(2);
  });

  it("may hold its weights beside the context, as in the first releases", async () => {
    const store = await changed("flat", (folder) => {
      cpSync(join(folder, "weights"), folder, { recursive: true });
      rmSync(join(folder, "weights"), { recursive: true });
    });
    expect(await nemo2.detect(store)).toBe("yes");
    expect(await bridge.detect(store)).toBe("no");
    expect(await digestsOf(await nemo2.read(store))).toEqual(await digestsOf(tiny));
  });

  it("names what was pickled beside its config, and does not open it", async () => {
    const store = await changed("artifact", (folder) =>
      cpSync(join(folder, "weights/common.pt"), join(folder, "context/0e4f0e4f-optim")),
    );
    const { objects } = await nemo2.read(store);
    expect(objects).toContain("context/0e4f0e4f-optim");
  });

  it("is opened by the ends of its entries", async () => {
    const { store, payloadBytes } = watchedStore(await fileStore(golden("nemo2-tp2")));
    const { tensors } = await nemo2.read(store);
    expect(payloadBytes(tensors)).toBeLessThanOrEqual(8192);
  });
});
