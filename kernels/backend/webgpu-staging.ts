/**
 * Transfers between host and GPU: a few buffers that the host writes while the GPU computes, and a few that it reads.
 * They grow to the size of the largest transfer.
 */
import type { Dawn } from "./dawn.ts";
import type { Commands } from "./webgpu-commands.ts";

interface GpuStaging {
  /** Calls `fill`, then queues the copy to `target`. Waits if the GPU still reads from every buffer. */
  upload(target: GPUBuffer, bytes: number, fill: (view: Uint8Array) => Promise<void> | void): Promise<void>;
  /** Resolves when no `fill` is running: its memory must not be released before. */
  waitForFills(): Promise<void>;
  /** A copy of the first `bytes`, after all commands queued before. */
  download(source: GPUBuffer, bytes: number): Promise<ArrayBuffer>;
}

interface Slot {
  readonly buffer: GPUBuffer;
  /** "free": mapped and unused; "queued": the GPU uses it until it is mapped again */
  state: "free" | "filling" | "queued";
  /** resolves when the buffer is free again */
  freed: Promise<void>;
}

/** One is filled, one waits, the GPU reads one; a fill that starts another fill needs a fourth. */
const SLOTS = 4;
const LEAST_BYTES = 1 << 20;
/** The size of a copy must be a multiple of four. */
const words = (bytes: number): number => Math.max(4, Math.ceil(bytes / 4) * 4);

export function createGpuStaging(device: GPUDevice, { usage, mode }: Dawn, commands: Commands): GpuStaging {
  const slots: Slot[] = [];
  const readers: GPUBuffer[] = [];
  const fills = new Set<Promise<void>>();

  const create = (bytes: number): Slot => {
    const size = Math.max(LEAST_BYTES, bytes);
    const buffer = device.createBuffer({
      size,
      usage: usage.MAP_WRITE | usage.COPY_SRC,
      mappedAtCreation: true,
    });
    const slot: Slot = { buffer, state: "filling", freed: Promise.resolve() };
    slots.push(slot);
    return slot;
  };

  const takeSlot = async (bytes: number): Promise<Slot> => {
    for (;;) {
      const free = slots
        .filter(({ state }) => state === "free")
        .sort((a, b) => a.buffer.size - b.buffer.size);
      const fitting = free.find(({ buffer }) => buffer.size >= bytes);
      if (fitting !== undefined) {
        fitting.state = "filling";
        return fitting;
      }
      const queued = slots.filter(({ state }) => state === "queued");
      if (slots.length < SLOTS || free.length > 0 || queued.length === 0) {
        if (slots.length >= SLOTS && free.length > 0) {
          free[0]!.buffer.destroy();
          slots.splice(slots.indexOf(free[0]!), 1);
        }
        return create(bytes);
      }
      await Promise.race(queued.map(({ freed }) => freed));
    }
  };

  return {
    async upload(target, bytes, fill) {
      const size = words(bytes);
      const slot = await takeSlot(size);
      const range = slot.buffer.getMappedRange();
      const done = (async () => fill(new Uint8Array(range, 0, bytes)))();
      fills.add(done);
      try {
        await done;
      } catch (error) {
        const isDeviceLost = range.byteLength === 0;
        slots.splice(slots.indexOf(slot), 1);
        slot.buffer.destroy();
        if (isDeviceLost) await commands.checkResult(Promise.reject(error));
        throw error;
      } finally {
        fills.delete(done);
      }
      slot.buffer.unmap();
      commands.copy(slot.buffer, target, size);
      commands.submit();
      slot.state = "queued";
      slot.freed = slot.buffer.mapAsync(mode.WRITE).then(
        () => {
          slot.state = "free";
        },
        () => {
          slots.splice(slots.indexOf(slot), 1); // the device is lost; `checkResult` reports it
        },
      );
    },

    async waitForFills() {
      await Promise.allSettled(fills);
    },

    async download(source, bytes) {
      const at = readers.findIndex((buffer) => buffer.size >= bytes);
      const reader =
        at >= 0
          ? readers.splice(at, 1)[0]!
          : device.createBuffer({ size: words(bytes), usage: usage.MAP_READ | usage.COPY_DST });
      commands.copy(source, reader, words(bytes));
      commands.submit();
      const mapped = reader.mapAsync(mode.READ, 0, words(bytes));
      const copy = await commands.checkResult(
        mapped.then(() => reader.getMappedRange(0, words(bytes)).slice(0, bytes)),
      );
      reader.unmap();
      readers.push(reader);
      if (readers.length > SLOTS) readers.shift()!.destroy();
      return copy;
    },
  };
}
