/** Compares the metadata in weight file headers. Transformers checks the field `format` when it loads a file. */
import { parseHeader } from "../../../formats/codec/safetensors.ts";
import type { Checkpoint } from "../../core/checkpoint.ts";
import type { Finding } from "../../core/finding.ts";
import { difference, remark } from "../../core/finding.ts";
import { Sources } from "../../core/read.ts";

const PYTORCH = "pt";
const RULE = "metadata-format";

/** Findings about weight files of `b` whose `format` Transformers refuses, where no file of `a` has the same value. */
export async function compareHeaderMetadata(a: Checkpoint, b: Checkpoint): Promise<readonly Finding[]> {
  const before = new Set((await formatsOf(a)).values());
  const fresh = [...(await formatsOf(b))].filter(([, format]) => format !== PYTORCH && !before.has(format));
  return fresh.map(([file, format]) => {
    const at = { file };
    if (format === undefined) {
      return remark(RULE, `${file} declares no format: older releases of Transformers refuse it`, at);
    }
    const value = JSON.stringify(format);
    return difference(RULE, `${file} declares the format ${value}: Transformers accepts only "pt"`, at);
  });
}

/** The value of `format` in `__metadata__`, by weight file. */
async function formatsOf({
  store,
  weightFiles,
}: Checkpoint): Promise<ReadonlyMap<string, string | undefined>> {
  await using sources = new Sources(store);
  const formats = new Map<string, string | undefined>();
  for (const { path, header } of weightFiles) {
    const bytes = await sources.bytes(header.file, header.offset, header.size);
    formats.set(path, parseHeader(bytes, path).metadata?.format);
  }
  return formats;
}
