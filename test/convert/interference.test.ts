/** What others do to staged files and to the destination while a conversion runs. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { basename, join } from "node:path";
import { describe, expect, it } from "vitest";
import type { ConvertOptions } from "../../src/api/convert.ts";
import { convert } from "../../src/api/convert.ts";
import { intercepted } from "../support/faulty-io.ts";
import { filesOf, workFolder } from "../support/goldens.ts";
import { smallModelWithFiles } from "../support/small.ts";

const work = workFolder();
const model = await smallModelWithFiles(join(work, "model"));
let counter = 0;
const quick = { verify: "bytes", threads: 1 } as const;
type When = "cover" | "bytes";

/** A conversion during which `act` is done after a rung: once, or each time. */
async function disturbed(
  destination: string,
  when: When,
  act: (partial: string) => void,
  more: ConvertOptions & { always?: boolean } = {},
) {
  const { always = false, ...options } = more;
  const warnings: string[] = [];
  let done = false;
  const watch: ConvertOptions["watch"] = (event) => {
    if (event.type === "warning") warnings.push(event.message);
    if (event.type !== "rung" || event.rung !== when || (done && !always)) return;
    done = true;
    act(join(`${destination}.partial`, "data"));
  };
  const outcome = await convert(model, destination, { ...quick, to: "hf", ...options, watch }).then(
    (report) => ({ report, error: undefined }),
    (error) => ({ report: undefined, error }),
  );
  expect(done).toBe(true);
  return { ...outcome, warnings };
}

const fresh = (ending = "") => join(work, `${counter++}${ending}`);
const beside = (path: string) =>
  readdirSync(work).filter((name) => join(work, name) !== path && join(work, name).startsWith(`${path}.`));

const undisturbed = fresh();
await convert(model, undisturbed, { ...quick, to: "hf" });

async function expectResumed(destination: string, more: ConvertOptions = {}) {
  const options = { ...quick, to: "hf", resume: true, ...more };
  const report = await convert(model, destination, options);
  expect(report.verification?.verdict).toBe("same");
  expect(beside(destination)).toEqual([]);
}

describe("staged files that change while they are verified", () => {
  it.each<[string, When, (data: string) => void]>([
    ["a side file is written over", "cover", (data) => writeFileSync(join(data, "chat_template.jinja"), "x")],
    [
      "a side file is replaced",
      "bytes",
      (data) => {
        writeFileSync(join(data, "..", "new"), "{}");
        renameSync(join(data, "..", "new"), join(data, "config.json"));
      },
    ],
    [
      "a side file gets other bytes, as many",
      "bytes",
      (data) => {
        const file = join(data, "tokenizer_config.json");
        writeFileSync(file, Buffer.alloc(statSync(file).size, "x"));
      },
    ],
    ["a file is removed", "bytes", (data) => rmSync(join(data, "generation_config.json"))],
    [
      "a folder takes the weights' place",
      "bytes",
      (data) => {
        rmSync(join(data, "model.safetensors"));
        mkdirSync(join(data, "model.safetensors"));
      },
    ],
    ["all are removed", "bytes", (data) => rmSync(data, { recursive: true })],
  ])("%s: refused, kept, and mended by a resume", async (_, when, act) => {
    const destination = fresh();
    const { error } = await disturbed(destination, when, act);
    expect(error).toMatchObject({ code: "STAGING_CHANGED", exit: 4 });
    expect([existsSync(destination), existsSync(`${destination}.partial`)]).toEqual([false, true]);
    await expectResumed(destination);
    expect(filesOf(destination)).toEqual(filesOf(undisturbed));
  });

  it("other weights in their place: verified again, and different", async () => {
    const destination = fresh();
    const { report, warnings } = await disturbed(destination, "bytes", (data) => {
      const file = join(data, "model.safetensors");
      const bytes = readFileSync(file);
      bytes[bytes.byteLength - 10]! ^= 0x40;
      rmSync(file);
      writeFileSync(file, bytes);
    });
    expect(report?.verification?.verdict).toBe("different");
    expect(warnings.join()).toContain("model.safetensors: the staged files are verified again");
    expect(existsSync(destination)).toBe(false);
  });

  const touch = (data: string) => utimesSync(join(data, "model.safetensors"), 1, 1);

  it("touched once: verified again, and there", async () => {
    const destination = fresh();
    const { report, warnings } = await disturbed(destination, "bytes", touch);
    expect(report?.verification?.verdict).toBe("same");
    expect(warnings.length).toBe(1);
    expect(filesOf(destination)).toEqual(filesOf(undisturbed));
  });

  it("touched each time: refused in the end", async () => {
    const destination = fresh();
    let times = 0;
    const { error, warnings } = await disturbed(
      destination,
      "bytes",
      (data) => {
        times++;
        utimesSync(join(data, "model.safetensors"), times, times);
      },
      { always: true },
    );
    expect(error).toMatchObject({ code: "STAGING_CHANGED" });
    expect([times, warnings.length]).toEqual([3, 2]);
    await expectResumed(destination);
  });

  /** Does `act` once, at the first call that `isThen` knows. */
  const atCall = (isThen: (name: string, args: unknown[]) => boolean, act: () => void) => {
    let done = false;
    return (name: string, again: (...args: unknown[]) => Promise<unknown>, args: unknown[]) => {
      if (!done && isThen(name, args)) {
        done = true;
        act();
      }
      return again(...args);
    };
  };

  /** Knows the sync of the journal: the first of a file or folder after elements were brought to the disk. */
  const journalSync = () => {
    let isWritten = false;
    return (name: string): boolean => {
      isWritten ||= name === "datasync";
      return isWritten && name === "sync";
    };
  };

  it("after the verification, before the last step: refused", async () => {
    const destination = fresh();
    const data = join(`${destination}.partial`, "data");
    const isJournal = journalSync();
    let isJournaled = false;
    const isSynced = (name: string, args: unknown[]) => {
      isJournaled ||= isJournal(name);
      return isJournaled && name === "open" && args[0] === data;
    };
    const outcome = await intercepted(
      atCall(isSynced, () => writeFileSync(join(data, "config.json"), "{}")),
      () => convert(model, destination, { ...quick, to: "hf" }),
    );
    expect(outcome).toMatchObject({ status: "rejected", reason: { code: "STAGING_CHANGED" } });
    expect(existsSync(destination)).toBe(false);
    await expectResumed(destination);
    expect(filesOf(destination)).toEqual(filesOf(undisturbed));
  });

  it.each(["hf", "packed"])(
    "before the verification, %s: nothing appears, and nothing is lost",
    async (to) => {
      const destination = fresh(to === "hf" ? "" : ".isologit");
      const name = to === "hf" ? "model.safetensors" : basename(destination);
      const file = join(`${destination}.partial`, "data", name);
      const outcome = await intercepted(
        // the journal is synced when all is written
        atCall(journalSync(), () => {
          const bytes = readFileSync(file);
          bytes[bytes.byteLength - 10]! ^= 0x40;
          writeFileSync(file, bytes);
        }),
        () => convert(model, destination, { ...quick, to }),
      );
      if (to === "packed") expect(outcome).toMatchObject({ reason: { code: "DIGEST_MISMATCH" } });
      else expect(outcome).toMatchObject({ value: { verification: { verdict: "different" } } });
      expect([existsSync(destination), existsSync(file)]).toEqual([false, true]);
      await expectResumed(destination, { to });
    },
  );

  it("a link in place of their folder is refused, and what lies behind it stays", async () => {
    const destination = fresh();
    const other = fresh();
    const { error } = await disturbed(destination, "bytes", (data) => {
      cpSync(data, other, { recursive: true });
      writeFileSync(join(other, "thesis.txt"), "mine");
      rmSync(data, { recursive: true });
      symlinkSync(other, data);
    });
    expect(error).toMatchObject({ code: "STAGING_CHANGED" });
    expect([existsSync(destination), existsSync(join(other, "thesis.txt"))]).toEqual([false, true]);
  });

  it("a file that nobody planned is removed, and not published", async () => {
    const destination = fresh();
    const { report, warnings } = await disturbed(destination, "cover", (data) =>
      writeFileSync(join(data, "adapter_config.json"), "{}"),
    );
    expect(report?.verification?.verdict).toBe("same");
    expect(warnings.join()).toContain("adapter_config.json is not planned");
    expect(filesOf(destination)).toEqual(filesOf(undisturbed));
  });

  it("without a verification, what nobody planned is not published either", async () => {
    const destination = fresh();
    await convert(model, destination, {
      ...{ to: "hf", verify: "off", threads: 1 },
      watch: (event) => {
        if (event.type === "tensor") writeFileSync(join(`${destination}.partial`, "data", "more.py"), "");
      },
    });
    expect(filesOf(destination)).toEqual(filesOf(undisturbed));
  });
});

describe("a destination that others make during the run", () => {
  it.each<[string, string, (path: string) => void, ConvertOptions]>([
    [
      "a folder with a file",
      "",
      (path) => {
        mkdirSync(path);
        writeFileSync(join(path, "thesis.txt"), "mine");
      },
      {},
    ],
    ["an empty folder", "", (path) => mkdirSync(path), {}],
    ["a file in place of a folder", "", (path) => writeFileSync(path, "mine"), {}],
    ["a file", ".isologit", (path) => writeFileSync(path, "mine"), { to: "packed" }],
    ["a folder in place of a file", ".isologit", (path) => mkdirSync(path), { to: "packed" }],
    [
      "a file, under --overwrite of nothing",
      ".isologit",
      (path) => writeFileSync(path, "mine"),
      {
        to: "packed",
        overwrite: true,
      },
    ],
  ])("%s: it stays, and a resume goes on when it is moved away", async (_, ending, make, more) => {
    const destination = fresh(ending);
    const { error } = await disturbed(destination, "bytes", () => make(destination), more);
    expect(error).toMatchObject({
      code: "DESTINATION_EXISTS",
      exit: 2,
      next: expect.stringContaining("`resume`"),
    });
    const moved = fresh();
    renameSync(destination, moved);
    const kept = statSync(moved).isDirectory() ? readdirSync(moved).join() : readFileSync(moved, "utf8");
    expect(["thesis.txt", "", "mine"]).toContain(kept);
    await expectResumed(destination, more);
  });

  it.each<[string, (path: string) => void]>([
    [
      "another folder takes its place",
      (path) => {
        rmSync(path, { recursive: true });
        mkdirSync(path);
        writeFileSync(join(path, "thesis.txt"), "mine");
      },
    ],
    ["something is added to it", (path) => writeFileSync(join(path, "thesis.txt"), "mine")],
  ])("under --overwrite only what was there is replaced: %s", async (_, change) => {
    const destination = fresh();
    cpSync(undisturbed, destination, { recursive: true });
    const { error } = await disturbed(destination, "bytes", () => change(destination), { overwrite: true });
    expect(error).toMatchObject({ code: "DESTINATION_EXISTS", exit: 2 });
    expect(readFileSync(join(destination, "thesis.txt"), "utf8")).toBe("mine");
    await expectResumed(destination, { overwrite: true });
    expect(filesOf(destination)).toEqual(filesOf(undisturbed));
  });

  it.each([
    ["is rewritten", "thesis.txt"],
    ["comes further down", "deep/thesis.txt"],
  ])("under --overwrite too what is there stays, where a file %s", async (_, name) => {
    const destination = fresh();
    mkdirSync(join(destination, "deep"), { recursive: true });
    writeFileSync(join(destination, "thesis.txt"), "old");
    const change = () => writeFileSync(join(destination, name), "mine");
    const { error } = await disturbed(destination, "bytes", change, { overwrite: true });
    expect(error).toMatchObject({ code: "DESTINATION_EXISTS", exit: 2 });
    expect(readFileSync(join(destination, name), "utf8")).toBe("mine");
    await expectResumed(destination, { overwrite: true });
  });

  it("one that is made in the very moment of the last step stays", async () => {
    for (const [to, ending, call] of [
      ["packed", ".isologit", "link"],
      ["hf", "", "rename"],
    ] as const) {
      const destination = fresh(ending);
      const outcome = await intercepted(
        (name, again, args) => {
          if (name === call) {
            if (to === "hf") mkdirSync(destination);
            writeFileSync(to === "hf" ? join(destination, "mine") : destination, "mine");
          }
          return again(...args);
        },
        () => convert(model, destination, { ...quick, to }),
      );
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "DESTINATION_EXISTS" } });
      expect(readFileSync(to === "hf" ? join(destination, "mine") : destination, "utf8")).toBe("mine");
      rmSync(destination, { recursive: true });
      await expectResumed(destination, { to });
    }
  });

  it("a file system without links still gets its file", async () => {
    const destination = fresh(".isologit");
    const outcome = await intercepted(
      (name, again, args) =>
        name === "link" ? Promise.reject(Object.assign(new Error("no"), { code: "EPERM" })) : again(...args),
      () => convert(model, destination, { ...quick, to: "packed" }),
    );
    expect(outcome.status).toBe("fulfilled");
    expect([existsSync(destination), beside(destination)]).toEqual([true, []]);
  });
});

it("the size that is told is the size on the disk, certificate included", async () => {
  for (const [to, ending] of [
    ["packed", ".isologit"],
    ["hf", ""],
  ] as const) {
    for (const verify of ["off", "bytes"] as const) {
      const destination = fresh(ending);
      const { destination: told } = await convert(model, destination, { ...quick, to, verify });
      const files =
        to === "hf" ? readdirSync(destination).map((name) => join(destination, name)) : [destination];
      expect(told.bytes).toBe(files.reduce((sum, file) => sum + statSync(file).size, 0));
      const again = await convert(model, destination, { ...quick, to, verify, resume: true });
      expect(again.destination.bytes).toBe(told.bytes);
    }
  }
});
