/** Places of certificates: in a folder, at the end of a packed file, or beside any other file. */
import { readFile, stat } from "node:fs/promises";
import { MAX_CERTIFICATE_BYTES } from "../../formats/codec/certificate-trailer.ts";
import { gguf } from "../../formats/gguf/format.ts";
import { packed } from "../../formats/packed/format.ts";
import { certificateSpan } from "../../formats/packed/read.ts";
import { storeAt } from "../checkpoint/store.ts";
import { CERTIFICATE_FILE, type Span } from "../core/checkpoint.ts";
import { IsologitError, systemError } from "../core/errors.ts";
import { readRange, readSmall, type Store } from "../core/io.ts";
import { type Certificate, decodeCertificate } from "./certificate.ts";

interface FoundCertificate {
  readonly bytes: Uint8Array;
  /** path for messages */
  readonly file: string;
}

/** Span of the certificate at the end of a packed file or of a GGUF; undefined without one, and for other formats. */
export async function trailerIn(store: Store): Promise<Span | undefined> {
  if ((await packed.detect(store)) === "yes") return await certificateSpan(store);
  if ((await gguf.detect(store)) === "no") return undefined;
  return await (await import("../../formats/gguf/read.ts")).certificateSpan(store); // only for this format
}

/**
 * @param named path of the certificate that the user named
 * @throws CERTIFICATE_MISSING; NOT_FOUND: the named file does not exist
 */
export async function findCertificate(
  address: string,
  store: Store,
  named?: string,
): Promise<FoundCertificate> {
  if (named !== undefined) return { bytes: await bytesOf(named), file: named };
  const trailer = await trailerIn(store);
  if (trailer !== undefined) {
    await using source = await store.open(trailer.file);
    return { bytes: await readRange(source, trailer.offset, trailer.size), file: address };
  }
  if ((await store.list()).some(({ path }) => path === CERTIFICATE_FILE)) {
    return { bytes: await readSmall(store, CERTIFICATE_FILE, MAX_CERTIFICATE_BYTES), file: CERTIFICATE_FILE };
  }
  const beside = `${address}.${CERTIFICATE_FILE}`;
  return { bytes: await bytesBeside(beside).catch((error) => missing(error, address)), file: beside };
}

/**
 * The certificate in a checkpoint or beside it; null if there is no certificate, or a certificate of other weights.
 *
 * @param root content root of the checkpoint
 * @throws CERTIFICATE_INVALID
 */
export async function readMatchingCertificate(
  address: string,
  root: string | null,
): Promise<Certificate | null> {
  const found = await findCertificate(address, await storeAt(address)).catch((error) => {
    if (error instanceof IsologitError && error.code === "CERTIFICATE_MISSING") return null;
    throw error;
  });
  if (found === null) return null;
  const certificate = decodeCertificate(found.bytes, found.file);
  return certificate.destination.root === root ? certificate : null;
}

/** Reads a certificate that the user did not name. Only files are read, because reading a pipe would wait forever. */
async function bytesBeside(file: string): Promise<Uint8Array> {
  const about = await stat(file).catch((cause) => Promise.reject(systemError(cause, { file })));
  if (!about.isFile()) throw new IsologitError("PATH_UNSAFE", "the certificate is not a file", { file });
  if (about.size > MAX_CERTIFICATE_BYTES) {
    const message = `${about.size} bytes, expected at most ${MAX_CERTIFICATE_BYTES} of a certificate`;
    throw new IsologitError("LIMIT_EXCEEDED", message, { file });
  }
  return await bytesOf(file);
}

async function bytesOf(file: string): Promise<Uint8Array> {
  return readFile(file).catch((cause) => {
    throw systemError(cause, { file });
  });
}

function missing(error: unknown, file: string): never {
  if (!(error instanceof IsologitError) || error.code !== "NOT_FOUND") throw error;
  throw new IsologitError("CERTIFICATE_MISSING", "no certificate was found in the checkpoint or beside it", {
    file,
  });
}
