/** Places and seals a packed file: pure functions of the request. */
import { bytesOf } from "../../src/core/dtype.ts";
import { IsologitError } from "../../src/core/errors.ts";
import { sha256Bytes } from "../../src/core/hash.ts";
import type { Placement, TensorDigests, WriteRequest } from "../format.ts";
import { ALIGNMENTS, encodeHead, HEAD_BYTES, type Head, parseHead } from "./head.ts";
import { encodeSeals, sealBytes } from "./seals.ts";
import {
  arrangeIndex,
  CONFIG,
  type Contents,
  checkName,
  checkPlaces,
  configBytes,
  encodeIndex,
  endOf,
  type PackedIndex,
  parseIndex,
} from "./tensor-index.ts";

/** Path of the only file in a placement. */
const FILE = "";
const DEFAULT_ALIGNMENT = 256;

/** The key of a copied side file in the digests for `sealPacked`. */
export function sealPackedFile(path: string): string {
  return `file:${path}`;
}

/**
 * The order is: head, index, seals, config.json, other side files, headers of weight files, tensors.
 *
 * @throws USAGE for an alignment that is neither 256 nor 4096; every error that a reader of the file would throw
 */
export function placePacked(wanted: WriteRequest): Placement {
  const sidecars = inOrder(wanted);
  const { head, headText, index, indexText } = layOut(wanted);
  const inline: Placement["inline"][number][] = [
    { file: FILE, offset: 0, bytes: headText },
    { file: FILE, offset: head.index.offset, bytes: indexText },
  ];
  const copies: Placement["copies"][number][] = [];
  sidecars.forEach((sidecar, i) => {
    const { offset } = index.entries[i]!;
    if ("bytes" in sidecar) inline.push({ file: FILE, offset, bytes: sidecar.bytes });
    else copies.push({ file: FILE, offset, from: sidecar.span });
  });
  wanted.weightFiles.forEach((shard, i) => {
    inline.push({ file: FILE, offset: index.shards[i]!.offset, bytes: shard.header });
  });
  return {
    files: [{ path: FILE, size: head.dataEnd }],
    tensors: index.tensors.map(({ name, offset }) => ({ name, file: FILE, offset })),
    inline,
    copies,
    seals: [{ file: FILE, ...head.seals }],
  };
}

/**
 * @param sealed digests by tensor name; those of a copied side file by `sealPackedFile` of its path
 * @throws INTERNAL when a digest is missing
 */
export function sealPacked(
  wanted: WriteRequest,
  sealed: ReadonlyMap<string, TensorDigests>,
): readonly Uint8Array[] {
  const { head, index } = layOut(wanted);
  const entries = new Map<string, string>();
  for (const sidecar of wanted.sidecars) {
    const digest =
      "bytes" in sidecar ? hexOf(sidecar.bytes) : sealed.get(sealPackedFile(sidecar.path))?.sha256;
    if (digest !== undefined) entries.set(sidecar.path, digest);
  }
  const shards = new Map(wanted.weightFiles.map(({ path, header }) => [path, hexOf(header)]));
  return [encodeSeals(index, head.indexDigest, { tensors: sealed, entries, shards })];
}

interface LaidOut {
  readonly head: Head;
  readonly headText: Uint8Array;
  readonly index: PackedIndex;
  readonly indexText: Uint8Array;
}

/** All places, and the front as bytes, checked by the rules of the reader. */
function layOut(wanted: WriteRequest): LaidOut {
  const { alignment = DEFAULT_ALIGNMENT } = wanted.options;
  if (!ALIGNMENTS.includes(alignment)) {
    throw new IsologitError("USAGE", `alignment ${alignment}: it is ${ALIGNMENTS.join(" or ")}`);
  }
  const contents = contentsOf(wanted);
  const sealSize = sealBytes(contents);
  const { index, indexText } = settle(contents, HEAD_BYTES + sealSize, alignment);
  const seals = { offset: HEAD_BYTES + indexText.byteLength, size: sealSize };
  const start = seals.offset + sealSize;
  const head: Head = {
    alignment,
    index: { offset: HEAD_BYTES, size: indexText.byteLength },
    indexDigest: sha256Bytes(indexText),
    seals,
    frontEnd: start + configBytes(contents),
    dataEnd: endOf(index, start),
  };
  const headText = encodeHead(head);
  parseHead(headText, head.dataEnd, FILE);
  checkPlaces(parseIndex(indexText, FILE), start, alignment, head.dataEnd, FILE);
  return { head, headText, index, indexText };
}

/**
 * The index contains offsets, which depend on its own length. A longer index never makes an offset smaller or its text
 * shorter, so the length grows from 0, in a few steps, to the least length that is consistent.
 */
function settle(
  contents: Contents,
  before: number,
  alignment: number,
): { index: PackedIndex; indexText: Uint8Array } {
  for (let size = 0; ; ) {
    const index = arrangeIndex(contents, before + size, alignment);
    const indexText = encodeIndex(index);
    if (indexText.byteLength === size) return { index, indexText };
    size = indexText.byteLength;
  }
}

function contentsOf(wanted: WriteRequest): Contents {
  const names = new Set(wanted.tensors.map((tensor) => tensor.name));
  const entries = inOrder(wanted).map((sidecar) => {
    const { path } = sidecar;
    if (names.has(sealPackedFile(path))) {
      throw new IsologitError(
        "NAME_INVALID",
        `a tensor has the name that is reserved for the digest of ${path}`,
        {
          tensor: sealPackedFile(path),
        },
      );
    }
    const size = "bytes" in sidecar ? sidecar.bytes.byteLength : sidecar.span.size;
    return { path: checkName(path, { file: path }), size };
  });
  const shards = wanted.weightFiles.map(({ path, header }) => ({
    path: checkName(path, { file: path }),
    size: header.byteLength,
  }));
  const tensors = wanted.tensors.map(({ name, dtype, shape, recast }) => {
    const at = { tensor: name };
    const tensor = { name: checkName(name, at), dtype, shape, size: bytesOf(dtype, shape, at) };
    return recast === undefined ? tensor : { ...tensor, recast };
  });
  return { dialect: wanted.dialect, tensors, entries, shards };
}

/** config.json, then the other side files by path. */
function inOrder(wanted: WriteRequest): WriteRequest["sidecars"] {
  const rank = (path: string) => (path === CONFIG ? 0 : 1);
  return wanted.sidecars.toSorted(
    (a, b) => rank(a.path) - rank(b.path) || (a.path < b.path ? -1 : a.path > b.path ? 1 : 0),
  );
}

function hexOf(bytes: Uint8Array): string {
  return Buffer.from(sha256Bytes(bytes)).toString("hex");
}
