import { defineConfig } from "vitest/config";

/** What needs the real libraries: `npm run interop`, never `npm test`. One file at a time, as each loads torch. */
export default defineConfig({
  test: {
    include: ["test/interop/*.interop.ts"],
    pool: "forks",
    fileParallelism: false,
    testTimeout: 600_000,
    hookTimeout: 600_000,
  },
});
