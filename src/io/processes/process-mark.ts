/** Identity of a process, so that another process can find out later whether it has ended. */
import { readFile, readlink } from "node:fs/promises";
import { hostname } from "node:os";
import { z } from "zod";

const Mark = z.object({
  pid: z.int(),
  host: z.string(),
  /** id of the installed system, because two hosts with one name may share a disk */
  machine: z.string().nullable(),
  /** id of this start of the machine */
  boot: z.string().nullable(),
  /** namespace of `pid`, because containers may have one host name */
  pids: z.string().nullable(),
  /** clock ticks from boot to the start of the process, because process ids are reused */
  started: z.string().nullable(),
});

/** A field that the system does not give is null. */
export type ProcessMark = z.infer<typeof Mark>;
export const ProcessMark = Mark;

export async function markOfThisProcess(): Promise<ProcessMark> {
  return {
    pid: process.pid,
    host: hostname(),
    machine: await textOf("/etc/machine-id"),
    boot: await textOf("/proc/sys/kernel/random/boot_id"),
    pids: await readlink("/proc/self/ns/pid").catch(() => null),
    started: (await statusOf(process.pid))?.started ?? null,
  };
}

/** Whether a process would be among those that this process sees, if it ran. */
export async function isInSight(other: ProcessMark): Promise<boolean> {
  const own = await markOfThisProcess();
  const sameMachine = other.host === own.host && other.machine === own.machine && other.boot === own.boot;
  return sameMachine && other.pids === own.pids;
}

/** True only if it is certain that the process has ended. A process on another host or in another container may run. */
export async function hasEnded(other: ProcessMark): Promise<boolean> {
  const own = await markOfThisProcess();
  if (other.host !== own.host || other.machine !== own.machine) return false;
  const isOtherBoot = other.boot !== own.boot && other.boot !== null && own.boot !== null;
  if (isOtherBoot) return own.machine !== null; // the machine was started again since then
  if (other.pids !== own.pids) return false;
  if (other.started === null || own.started === null) return !isThere(other.pid);
  const status = await statusOf(other.pid);
  if (status === null) return !isThere(other.pid); // too many files may be open, or processes of other users are hidden
  return status.ended || status.started !== other.started;
}

/** @returns null if there is no such process, or no /proc */
async function statusOf(pid: number): Promise<{ ended: boolean; started: string } | null> {
  const text = await textOf(`/proc/${pid}/stat`);
  if (text === null) return null;
  // proc_pid_stat(5): the name is in parentheses and may contain any character; state is field 3, start is field 22
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return { ended: fields[0] === "Z" || fields[0] === "X", started: fields[19] ?? "" };
}

function isThere(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return !(error instanceof Error && "code" in error && error.code === "ESRCH");
  }
}

async function textOf(path: string): Promise<string | null> {
  const text = await readFile(path, "utf8").catch(() => "");
  return text.trim() || null;
}
