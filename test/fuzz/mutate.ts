/** Damage by chance, from a seed: to bytes, and to the values of a JSON. */
import type { Json } from "../../src/core/json.ts";

type Random = (n: number) => number;

/** Numbers and words that parsers trip over. */
const WORDS = [
  ...[
    "0",
    "-1",
    "1e999",
    "0.5",
    "9007199254740993",
    "18446744073709551616",
    "null",
    "true",
    "[]",
    "{}",
    '""',
  ],
  ...[
    '"__proto__"',
    '"constructor"',
    '"\\ud800"',
    '"../x"',
    "NaN",
    "Infinity",
    ",",
    ":",
    "}",
    "]",
    '"',
    "\\",
    "\0",
  ],
].map((word) => Buffer.from(word));

/** One to four spoilt places: bytes changed, taken out, put in twice, or overwritten by a word. */
export function spoiltBytes(bytes: Uint8Array, random: Random): Uint8Array {
  let spoilt = Buffer.from(bytes);
  for (let times = 1 + random(4); times > 0; times--) {
    const at = random(spoilt.byteLength + 1);
    const size = random(24);
    const [before, run, after] = [
      spoilt.subarray(0, at),
      spoilt.subarray(at, at + size),
      spoilt.subarray(at + size),
    ];
    switch (random(5)) {
      case 0:
        spoilt = Buffer.concat([before, Buffer.from(run.map(() => random(256))), after]);
        break;
      case 1:
        spoilt = Buffer.concat([before, after]);
        break;
      case 2:
        spoilt = Buffer.concat([before, run, run, after]);
        break;
      case 3:
        spoilt = Buffer.concat([before, WORDS[random(WORDS.length)]!, after]);
        break;
      default:
        spoilt = Buffer.concat([before, run.map((byte) => byte ^ (1 << random(8))), after]);
    }
  }
  return new Uint8Array(spoilt);
}

export const VALUES: readonly Json[] = [
  ...[
    0,
    -1,
    1,
    2,
    3,
    0.5,
    8,
    1e9,
    2 ** 31,
    2 ** 53,
    1e300,
    true,
    false,
    null,
    "",
    "M",
    "M-M*-",
    "E".repeat(300),
    "M".repeat(200_000),
  ],
  ...["__proto__", "Infinity", "nemotron_h", [], {}, [0, 1], ["mamba"], [0, { __float__: "Infinity" }]],
];

/** The value with one to three of its inner values replaced, taken out or given another name. */
export function spoiltJson(value: Json, random: Random): Json {
  const copy = structuredClone(value) as Json;
  for (let times = 1 + random(3); times > 0; times--) {
    let holder = copy as Record<string, Json>;
    for (;;) {
      const keys = Object.keys(holder);
      if (keys.length === 0) break;
      const key = keys[random(keys.length)]!;
      const inner = holder[key];
      if (typeof inner === "object" && inner !== null && random(2) === 0) {
        holder = inner as Record<string, Json>;
        continue;
      }
      const kind = random(6);
      if (kind === 0) delete holder[key];
      else if (kind === 1 && keys.length > 1) holder[key] = holder[keys[random(keys.length)]!]!;
      else holder[key] = VALUES[random(VALUES.length)]!;
      break;
    }
  }
  return copy;
}
