/** Turns any failure into an `IsologitError` and prints it as text or as JSON. */
import { inspect } from "node:util";
import { type ErrorLocation, IsologitError, systemError } from "../core/errors.ts";
import { escapeControls } from "../core/figures.ts";
import { jsonText } from "../report/json.ts";
import { nameFlags } from "./flag-names.ts";
import type { Io } from "./io.ts";
import { paintFor } from "./render.ts";

interface FailureStyle {
  readonly json: boolean;
  readonly verbose: boolean;
}

/** Prints `error` as JSON on stdout or as text on stderr. Returns the exit status. */
export function reportFailure(error: unknown, io: Io, style: FailureStyle): number {
  const failure = asIsologitError(error);
  const { code, message, at, next } = failure;
  if (style.json) {
    io.stdout.write(jsonText({ error: { code, message, at, next } }));
  } else {
    const paint = paintFor(io.stderr, io.env);
    const where = locationText(at);
    io.stderr.write(
      `${paint("red", code)}  ${message.split("\n").map(escapeControls).join("\n  ")}${where === "" ? "" : `, ${where}`}\n`,
    );
    io.stderr.write(`next: ${escapeControls(next)}\n`);
  }
  if (style.verbose && code === "INTERNAL") io.stderr.write(`${inspect(failure.cause ?? failure)}\n`);
  return failure.exit;
}

export function asIsologitError(error: unknown): IsologitError {
  const path = error instanceof Error && "path" in error ? String(error.path) : undefined;
  const known = systemError(error, path === undefined ? {} : { file: path });
  if (known instanceof IsologitError) {
    const { code, message, at, next, cause = known } = known;
    return new IsologitError(code, nameFlags(message), at, { cause, next: nameFlags(next) });
  }
  const message = known instanceof Error ? known.message : String(known);
  return new IsologitError("INTERNAL", message, {}, { cause: error });
}

/** `in FILE, tensor NAME, element N, byte N`, as far as known. */
function locationText(at: ErrorLocation): string {
  const parts = [
    at.file === undefined ? [] : `in ${escapeControls(at.file)}`,
    at.tensor === undefined ? [] : `tensor ${escapeControls(at.tensor)}`,
    at.index === undefined ? [] : `element ${at.index}`,
    at.offset === undefined ? [] : `byte ${at.offset}`,
  ];
  return parts.flat().join(", ");
}

/**
 * Handles failures outside any `await`. A closed pipe (`| head`) is not an error and is ignored. Other errors end the
 * process with status 70, because Node's own status, 1, means "a check failed" here.
 */
export function guardProcess(io: Io): void {
  for (const stream of [io.stdout, io.stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE") return;
      const failure = new IsologitError(
        "IO_FAILED",
        error.message,
        {},
        { next: "write the output to another place" },
      );
      io.exit(reportFailure(failure, io, { json: false, verbose: false }));
    });
  }
  process.on("uncaughtException", (error) =>
    io.exit(reportFailure(error, io, { json: false, verbose: true })),
  );
}
