/** Kind of a file by its first bytes: common containers, and files that replace them by mistake. */

export type FileContent =
  | "empty"
  | "lfs-pointer"
  | "web-page"
  | "xml"
  | "json"
  | "text"
  | "zeros"
  | "gguf"
  | "zip"
  | "pickle"
  | "gzip"
  | "xz"
  | "zstd"
  | "bzip2"
  | "tar"
  | "safetensors"
  | "other";

/** Bytes that `contentOf` needs; the mark of a tar is at byte 257. */
export const START_BYTES = 512;

/** In order of trial. `hex`: the bytes at offset `at`. */
const MAGIC: readonly { readonly content: FileContent; readonly hex: string; readonly at?: number }[] = [
  { content: "gguf", hex: "47475546" },
  { content: "zip", hex: "504b0304" },
  { content: "gzip", hex: "1f8b" },
  { content: "xz", hex: "fd377a585a00" },
  { content: "zstd", hex: "28b52ffd" },
  { content: "bzip2", hex: "425a68" },
  { content: "tar", hex: "7573746172", at: 257 },
];

/** First text of a Git LFS pointer; by its specification, a pointer has less than 1,024 bytes. */
const LFS = "version https://git-lfs.github.com/spec/";
export const MAX_POINTER_BYTES = 1024;

/** @param start the first START_BYTES of the file, or all of a shorter one */
export function fileContent(start: Uint8Array): FileContent {
  if (start.byteLength === 0) return "empty";
  const bytes = Buffer.from(start);
  for (const { content, hex, at = 0 } of MAGIC) {
    if (bytes.subarray(at, at + hex.length / 2).toString("hex") === hex) return content;
  }
  if (isSafetensors(bytes)) return "safetensors";
  if (bytes[0] === 0x80 && bytes[1]! >= 2 && bytes[1]! <= 5) return "pickle";
  if (bytes.every((byte) => byte === 0)) return "zeros";
  return isText(bytes) ? textKind(bytes.toString("utf8")) : "other";
}

/** The file begins with eight bytes of length and the brace of a JSON object. Eight letters, read as a length, are above 2^60. */
function isSafetensors(bytes: Buffer): boolean {
  return bytes.byteLength > 8 && bytes.readBigUInt64LE(0) < 2n ** 40n && bytes[8] === 0x7b;
}

function isText(bytes: Buffer): boolean {
  try {
    // `stream`, because the last character may be incomplete
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    return !/[^\P{Cc}\t\n\r]/u.test(text);
  } catch {
    return false; // the bytes are not UTF-8
  }
}

function textKind(text: string): FileContent {
  if (text.startsWith(LFS)) return "lfs-pointer";
  const bare = text.replace(/^\u{feff}/u, "").trimStart();
  if (/^<!doctype html|^<html|^<head|^<body/i.test(bare)) return "web-page";
  if (bare.startsWith("<")) return "xml";
  return bare.startsWith("{") || bare.startsWith("[") ? "json" : "text";
}

/** The name of a content in a sentence: "this is …". */
export const CONTENT_NAMES: Readonly<Record<FileContent, string>> = {
  empty: "an empty file",
  "lfs-pointer": "a Git LFS pointer",
  "web-page": "a web page",
  xml: "an XML text",
  json: "a JSON text",
  text: "a text",
  zeros: "a file that begins with zeros",
  gguf: "a GGUF file",
  zip: "a zip archive",
  pickle: "a pickle",
  gzip: "a gzip file",
  xz: "an xz file",
  zstd: "a Zstandard file",
  bzip2: "a bzip2 file",
  tar: "a tar archive",
  safetensors: "a safetensors file",
  other: "a file of another kind",
};
