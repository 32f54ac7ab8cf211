/** Divides work between tasks. */

/**
 * A share of the units for each task. A share is neighbouring units with about as many bytes as any other share has; with few
 * units some shares are empty. The same on every machine.
 */
export function divideByBytes<T>(
  units: readonly T[],
  bytesOf: (unit: T) => number,
  count: number,
): readonly (readonly T[])[] {
  const total = units.reduce((sum, unit) => sum + bytesOf(unit), 0);
  const shares = Array.from({ length: count }, (): T[] => []);
  let at = 0;
  for (const unit of units) {
    const bytes = bytesOf(unit);
    const middle = at + bytes / 2; // a unit belongs to the task in whose part of the bytes its middle lies
    const index = total === 0 ? 0 : Math.min(count - 1, Math.floor((middle * count) / total));
    shares[index]!.push(unit);
    at += bytes;
  }
  return shares;
}
