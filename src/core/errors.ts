/**
 * The one error class and the closed table of its codes. The code decides the exit status and the default next step.
 * The place that throws says what was expected, what was found, and where.
 */

interface ErrorRow {
  /** Exit status: 2 usage or plan, 3 input, 4 file system or network, 5 interrupted, 70 a bug of isologit. */
  readonly exit: 2 | 3 | 4 | 5 | 70;
  readonly next: string;
}

/** Infers the codes alone, so that the declarations of the package do not hold the whole table. */
const errorTable = <Code extends string>(rows: Readonly<Record<Code, ErrorRow>>) => rows;

export const ERRORS = errorTable({
  // 2: the request is wrong or cannot be carried out
  USAGE: { exit: 2, next: "run the command with --help to see its arguments" },
  NOT_AVAILABLE: { exit: 2, next: "run `isologit formats` to see what this version can do" },
  NOT_WRITTEN: { exit: 2, next: "run `isologit formats` to see which formats are written" },
  DESTINATION_EXISTS: { exit: 2, next: "choose another destination, or pass `overwrite`" },
  STAGING_EXISTS: { exit: 2, next: "continue it with `resume`, or start again with `overwrite`" },
  PLAN_MEMORY: { exit: 2, next: "raise `memoryBytes` to at least the number above" },
  PLAN_CHANGED: { exit: 2, next: "make a new plan with `isologit plan`, or start again with `overwrite`" },
  PLAN_IMPOSSIBLE: { exit: 2, next: "run `isologit plan` with other options" },
  RECIPE_INVALID: { exit: 2, next: "see docs/recipes.md for the form of a recipe file" },
  PLUGIN_INVALID: { exit: 2, next: "see docs/extending.md for what a plug-in must have" },
  CERTIFICATE_MISSING: { exit: 2, next: "name the checkpoint to compare with, or a file with `certificate`" },
  IDENTITY_MISSING: {
    exit: 2,
    next: "give the GitHub job `permissions: id-token: write`, set SIGSTORE_ID_TOKEN, or pass `identityToken`",
  },
  // 3: the input is damaged, hostile or unsupported
  FORMAT_UNKNOWN: {
    exit: 3,
    next: "check the path; `isologit formats` lists what can be read, and `plugins` adds more",
  },
  NOT_FETCHED: { exit: 3, next: "fetch the whole file again" },
  FORMAT_AMBIGUOUS: { exit: 3, next: "keep only one checkpoint at this address" },
  HEADER_INVALID: { exit: 3, next: "fetch or write the file again; its header is damaged" },
  LIMIT_EXCEEDED: { exit: 3, next: "the file asks for more than a real checkpoint needs; do not trust it" },
  TRUNCATED: { exit: 3, next: "fetch the file again; its end is missing" },
  TRAILING_BYTES: { exit: 3, next: "fetch the file again; it is longer than its header says" },
  SPAN_INVALID: { exit: 3, next: "fetch or write the file again; its tensors do not tile its data" },
  DUPLICATE_NAME: { exit: 3, next: "write the file again with each name once" },
  NAME_INVALID: { exit: 3, next: "do not trust the file; names like this are not written by known software" },
  SIZE_UNSAFE: { exit: 3, next: "do not trust the file; no real tensor is this large" },
  DTYPE_UNKNOWN: { exit: 3, next: "see docs/formats.md for the element types that can be read" },
  INDEX_MISMATCH: { exit: 3, next: "fetch the index and the shards again, from one revision" },
  PATH_UNSAFE: { exit: 3, next: "do not trust the checkpoint; it points outside itself" },
  VERSION_UNSUPPORTED: { exit: 3, next: "use a version of isologit that knows this file version" },
  DIGEST_MISMATCH: { exit: 3, next: "fetch the file again; its bytes are not those that were written" },
  PICKLE_INVALID: { exit: 3, next: "do not trust the file; no pickler writes this" },
  PICKLE_REFUSED: { exit: 3, next: "run `isologit scan` on the file; do not load it with other software" },
  ARCHIVE_INVALID: { exit: 3, next: "fetch or write the file again; its directory of entries is damaged" },
  PADDING_INVALID: { exit: 3, next: "do not trust the file; its padding holds bytes that are not zero" },
  CONFIG_INVALID: { exit: 3, next: "compare config.json with the published one" },
  FAMILY_UNKNOWN: {
    exit: 3,
    next: "`isologit formats` lists the families that are known, and `plugins` adds more",
  },
  TENSOR_UNKNOWN: { exit: 3, next: "check that config.json and the weights belong together" },
  TENSOR_MISSING: { exit: 3, next: "check that config.json and the weights belong together" },
  SHAPE_MISMATCH: { exit: 3, next: "check that config.json and the weights belong together" },
  REPLICA_DIFFERS: {
    exit: 3,
    next: "fetch the ranks' files again, of one iteration; they do not belong together",
  },
  SCALE_INVALID: { exit: 3, next: "write the quantised checkpoint again" },
  CERTIFICATE_CONTRADICTED: {
    exit: 3,
    next: "run `isologit verify` on the source; if it was changed on purpose, delete its certificate",
  },
  CERTIFICATE_INVALID: {
    exit: 3,
    next: "do not trust the certificate; verify against the source, or convert again",
  },
  BUNDLE_INVALID: {
    exit: 3,
    next: "do not trust the bundle; fetch it again, or ask the signer for a new one",
  },
  BUNDLE_UNTRUSTED: { exit: 3, next: "find out who signed it before you name that signer as trusted" },
  NON_FINITE: { exit: 3, next: "keep this tensor's dtype with `recipe`, or repair the weights" },
  OVERFLOW: { exit: 3, next: "use `dtype` bf16, or pass `allowOverflow` to store infinities" },
  UNSUPPORTED: { exit: 3, next: "see docs/formats.md and docs/other-checkpoints.md for what is read" },
  // 4: file system, network or device
  NOT_FOUND: { exit: 4, next: "check the path" },
  IO_FAILED: { exit: 4, next: "check the disk and its permissions, then try again with `resume`" },
  DISK_FULL: { exit: 4, next: "free space on the destination's disk, then continue with `resume`" },
  FILE_CHANGED: { exit: 4, next: "let the writer of the source finish, then start again" },
  STAGING_CHANGED: { exit: 4, next: "stop other programs that write there, then continue with `resume`" },
  DESTINATION_BUSY: { exit: 4, next: "wait until the other process ends, then use `resume`" },
  TASKS_UNFINISHED: { exit: 4, next: "run the named tasks again, then merge" },
  NETWORK: {
    exit: 4,
    next: "check the connection, then run the same command again; downloaded parts are kept",
  },
  ACCESS_REFUSED: { exit: 4, next: "set HF_TOKEN to a token that may do this, or pass `token`" },
  OFFLINE: { exit: 4, next: "unset HF_HUB_OFFLINE, or name a revision that is in the cache" },
  TRANSFER_DAMAGED: {
    exit: 4,
    next: "try again later; if the error stays, tell the owner of the repository",
  },
  LISTING_UNSAFE: { exit: 4, next: "do not trust the repository; its owner can rename the file" },
  ADDRESS_SPACE: { exit: 4, next: "raise the limit of virtual memory (`ulimit -v`), or remove it" },
  GPU_LOST: { exit: 4, next: "run the command again; `backend` wasm needs no GPU" },
  GPU_MEMORY: { exit: 4, next: "free memory of the GPU, or use `backend` wasm" },
  // 5, 70
  INTERRUPTED: { exit: 5, next: "continue with `resume`" },
  INTERNAL: { exit: 70, next: "report this with the command and the message" },
});

export type ErrorCode = keyof typeof ERRORS;

/** Where an error is. `offset` counts bytes from the start of `file`. */
export interface ErrorLocation {
  readonly file?: string;
  readonly tensor?: string;
  readonly offset?: number;
  /** flat index of an element inside `tensor`, in C order */
  readonly index?: number;
}

export class IsologitError extends Error {
  readonly code: ErrorCode;
  readonly at: ErrorLocation;
  readonly next: string;

  /**
   * @param message what was found and what was expected
   * @param options.next replaces the next step of the table if a better one is known
   */
  constructor(
    code: ErrorCode,
    message: string,
    at: ErrorLocation = {},
    options: { cause?: unknown; next?: string } = {},
  ) {
    super(message, options.cause === undefined ? {} : { cause: options.cause });
    this.name = "IsologitError";
    this.code = code;
    this.at = at;
    this.next = options.next ?? ERRORS[code].next;
  }

  get exit(): number {
    return ERRORS[this.code].exit;
  }
}

/** The same error with a location added: a parser, for example, does not know the path of its file. */
export function withLocation(error: unknown, at: ErrorLocation): unknown {
  if (!(error instanceof IsologitError)) return error;
  const { cause, next } = error;
  return new IsologitError(error.code, error.message, { ...at, ...error.at }, { cause, next });
}

/**
 * An error of Node's file system as an `IsologitError`; other errors unchanged. If closing a file (`await using`) also
 * failed, the first error counts.
 */
export function systemError(error: unknown, at: ErrorLocation): unknown {
  if (error instanceof Error && error.name === "SuppressedError" && "suppressed" in error) {
    return systemError(error.suppressed, at);
  }
  if (error instanceof RangeError && isTooLarge(error)) {
    const next = "check that this is the right file";
    return new IsologitError("LIMIT_EXCEEDED", "the file is too large to read in one piece", at, {
      cause: error,
      next,
    });
  }
  if (!(error instanceof Error) || !("code" in error)) return error;
  const cause = error;
  switch (error.code) {
    case "ENOENT":
    case "ENOTDIR":
      return new IsologitError("NOT_FOUND", "no such file or folder", at, { cause });
    case "ENOSPC":
    case "EDQUOT":
    case "EFBIG":
      return new IsologitError("DISK_FULL", "the disk has no room for this file", at, { cause });
    case "EMFILE":
    case "ENFILE":
      return new IsologitError("IO_FAILED", "too many files are open", at, {
        cause,
        next: "raise the limit of open files (`ulimit -n 1024`), then try again with `resume`",
      });
    case "ENAMETOOLONG":
      return new IsologitError("NOT_FOUND", "the name is longer than the file system allows", at, {
        cause,
        next: "choose a shorter name",
      });
    case "ABORT_ERR":
      return new IsologitError("INTERRUPTED", "the run was stopped", at, { cause });
    default:
      return String(error.code).startsWith("E") && "syscall" in error
        ? new IsologitError("IO_FAILED", error.message, at, { cause })
        : error;
  }
}

/** Node's error for a file of more than 2 GiB, and its error, without a code, for a text that is too long for a string. */
function isTooLarge(error: RangeError): boolean {
  const code = "code" in error ? error.code : "";
  return code === "ERR_FS_FILE_TOO_LARGE" || error.message === "Invalid string length";
}
