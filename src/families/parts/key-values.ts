/**
 * The values that a config key may have, and the setting that a value means. Every command that opens a checkpoint reads
 * such keys, and a schema library would take longer to load than `inspect` takes in all.
 */

/** A kind of value. */
export interface KeyValue {
  /** what is allowed, such as `a whole number of at least 1` */
  readonly expected: string;
  /** The setting that a value means; undefined: the value is not allowed. */
  read(value: unknown): unknown;
}

/** Values for which `isAllowed` holds; each is the setting as it stands. */
export const valueThat = (expected: string, isAllowed: (value: unknown) => boolean): KeyValue => ({
  expected,
  read: (value) => (isAllowed(value) ? value : undefined),
});

/** A whole number that a double holds exactly. */
const isWhole = (value: unknown): boolean => Number.isSafeInteger(value);

export const count = valueThat(
  "a whole number of at least 1",
  (value) => isWhole(value) && Number(value) >= 1,
);
export const whole = valueThat(
  "a whole number of at least 0",
  (value) => isWhole(value) && Number(value) >= 0,
);
export const finite = valueThat("a number", Number.isFinite);
export const positive = valueThat("a number above 0", (value) => Number.isFinite(value) && Number(value) > 0);
export const flag = valueThat("true or false", (value) => typeof value === "boolean");
export const text = valueThat("text", (value) => typeof value === "string");
export const anything = valueThat("any value", () => true);

/** Only these values are computed here; any other changes the function. */
export const only = (...values: readonly (string | boolean)[]): KeyValue =>
  valueThat(values.map(String).join(" or "), (value) => values.some((allowed) => allowed === value));
