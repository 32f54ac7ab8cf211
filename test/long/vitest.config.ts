import { defineConfig } from "vitest/config";

/** What takes minutes: `npm run test:long`. The usual run leaves these out. */
export default defineConfig({
  test: {
    include: ["test/long/**/*.test.ts"],
    setupFiles: ["test/support/environment.ts"],
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 600_000,
    hookTimeout: 600_000,
  },
});
