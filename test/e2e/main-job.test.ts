/** What users came for, by the built program: there and back, byte for byte, with a verdict. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { arraysOf, filesOf, golden, workFolder } from "../support/goldens.ts";
import { isologit, json } from "../support/program.ts";

const work = workFolder();
const at = (name: string) => join(work, name);
const packed = at("model.isologit");

describe("the main job", () => {
  it("a folder is packed, and proven", async () => {
    const { status, report, stderr } = await json("convert", golden("sharded"), packed);
    expect(status).toBe(0);
    expect(report).toMatchObject({
      exact: true,
      source: { format: "hf" },
      destination: { format: "packed", path: packed },
    });
    expect(report.verification).toMatchObject({ verdict: "same", backend: "wasm", firstDivergence: null });
    expect(report.verification.rungs.map(({ rung }: { rung: string }) => rung)).toEqual([
      "cover",
      "bytes",
      "logits",
    ]);
    expect(report.destination.root).toBe(report.source.root);
    expect(stderr).toContain("convert");
  });

  it("unpacked it is the same folder, file for file", async () => {
    const { status, stdout } = await isologit("convert", packed, at("back"), "--to", "hf");
    expect(status).toBe(0);
    expect(stdout).toMatch(/^same: wrote /m);
    expect(filesOf(at("back"))).toEqual(filesOf(golden("sharded")));
  });

  it("recast to FP8 it is within, and verify agrees", async () => {
    const recast = await json(
      "recast",
      packed,
      at("fp8.isologit"),
      "--dtype",
      "fp8-e4m3",
      "--keep-ends",
      "0",
      "--quiet",
    );
    expect([recast.status, recast.report.verification.verdict, recast.stderr]).toEqual([0, "within", ""]);
    const verified = await json("verify", golden("sharded"), at("fp8.isologit"), "--tokens", "8");
    expect([verified.status, verified.report.verdict]).toEqual([0, "within"]);
    const other = await json("verify", golden("tiny"), packed);
    expect([other.status, other.report.verdict]).toEqual([1, "different"]);
  });

  it("verified again by its certificate, and a flipped byte is red", async () => {
    const again = await json("verify", packed, "--verify", "bytes");
    expect([again.status, again.report.verdict, again.report.backend]).toEqual([0, "same", null]);
    expect(again.report.certificate.sha256).toMatch(/^[0-9a-f]{64}$/);
    const bytes = readFileSync(packed);
    for (const [at_, code] of [
      [bytes.length - 2000, "CERTIFICATE_INVALID"], // in the certificate
      [Math.floor(bytes.length / 2), "DIGEST_MISMATCH"], // in a weight
    ] as const) {
      const broken = Uint8Array.from(bytes);
      broken[at_]! ^= 1;
      writeFileSync(at("broken.isologit"), broken);
      const { status, report } = await json("verify", at("broken.isologit"), "--verify", "bytes");
      expect([status, report.error.code]).toEqual([3, code]);
    }
    const none = await json("verify", golden("tiny"));
    expect([none.status, none.report.error.code]).toEqual([2, "CERTIFICATE_MISSING"]);
  });

  it("a plan is what convert then does", async () => {
    const planned = await json("plan", golden("tiny"), at("planned.isologit"));
    writeFileSync(at("plan.json"), planned.stdout);
    const run = ["convert", golden("tiny"), at("planned.isologit"), "--plan", at("plan.json")];
    const { status, report } = await json(...run, "--verify", "off");
    expect([planned.status, status]).toEqual([0, 0]);
    expect(report).toMatchObject({
      plan: planned.report.id,
      bytesWritten: planned.report.bytesWritten,
      verification: null,
    });
    expect(report.source.root).toBeNull();
    expect(readFileSync(at("planned.isologit")).byteLength).toBe(planned.report.bytesWritten);
    const other = await json(...run, "--overwrite", "--dtype", "f32");
    expect([other.status, other.report.error.code]).toEqual([2, "PLAN_CHANGED"]);
  });

  it("--overwrite replaces, --resume on what is finished only looks", async () => {
    const again = ["convert", golden("tiny"), at("planned.isologit"), "--verify", "bytes"];
    const replaced = await json(...again, "--overwrite");
    expect([replaced.status, replaced.report.verification.verdict]).toEqual([0, "same"]);
    const looked = await json(...again, "--resume");
    expect([looked.status, looked.report.bytesWritten, looked.report.verification.verdict]).toEqual([
      0,
      0,
      "same",
    ]);
    const foreign = await isologit("convert", golden("tiny-t5"), packed, "--verify", "bytes", "--resume");
    expect(foreign.status).toBe(1);
    expect(foreign.stderr).toContain("is not this conversion");
    expect([...filesOf(work).keys()].filter((file) => file.includes(".partial"))).toEqual([]);
  });
});

describe("what looks and does not write", () => {
  it("inspect --tensors", async () => {
    const { status, report, stderr } = await json("inspect", golden("moe"), "--tensors");
    expect([status, stderr]).toEqual([0, ""]);
    expect(report).toMatchObject({ format: "hf", dialect: "hf", family: "nemotron-h" });
    expect(report.tensors).toHaveLength(133);
    const text = await isologit("inspect", packed);
    expect(text.stdout).toMatch(/^format +packed/m);
  });

  it("a lone weight file can be inspected, and only that", async () => {
    const lone = join(golden("tiny"), "model.safetensors");
    expect((await json("inspect", lone)).report).toMatchObject({ format: "hf", family: null, dialect: null });
    const { status, report } = await json("convert", lone, at("lone.isologit"));
    expect([status, report.error.code]).toEqual([3, "FORMAT_UNKNOWN"]);
    expect(report.error.next).toContain(golden("tiny")); // the folder that it is a file of
  });

  it("formats and doctor", async () => {
    const [formats, doctor] = [await json("formats"), await json("doctor")];
    const ids = ["packed", "hf", "nemo2", "nemo1", "bridge", "megatron", "gguf"];
    expect(formats.report.formats.map(({ id }: { id: string }) => id)).toEqual(ids);
    expect([formats.status, doctor.status, formats.stderr + doctor.stderr]).toEqual([0, 0, ""]);
    expect(doctor.report.backends[0]).toMatchObject({ id: "wasm", available: true });
  });

  it("logits", async () => {
    const out = at("logits.safetensors");
    const { status, report } = await json("logits", packed, "--ids", "1,2,3", "--hidden", "--out", out);
    expect([status, report]).toMatchObject([0, { backend: "wasm", tokens: 3, out }]);
    const arrays = await arraysOf(out);
    expect(arrays.get("logits")).toMatchObject({ dtype: "F32", shape: [3, report.vocab] });
    expect([...arrays.keys()].filter((name) => name.startsWith("hidden."))).not.toEqual([]);
    expect((await json("logits", packed, "--out", out)).report.error.code).toBe("DESTINATION_EXISTS");
  });

  it("--version and --help go to stdout", async () => {
    for (const flag of ["--version", "--help"]) {
      const { status, stdout, stderr } = await isologit(flag);
      expect([status, stderr], flag).toEqual([0, ""]);
      expect(stdout).not.toBe("");
    }
  });
});
