import { configDefaults, defineConfig } from "vitest/config";

/** Files that put doubles in the place of modules: each of these has a process of its own. */
const WITH_DOUBLES = ["test/io/mount.test.ts", "test/io/retry.test.ts"];

/** All other files share two processes, so that the sources are loaded and compiled twice, not once for each file. */
export default defineConfig({
  test: {
    pool: "forks",
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    projects: [
      {
        extends: true,
        test: {
          name: "shared",
          isolate: false,
          include: ["test/**/*.test.ts"],
          exclude: [...configDefaults.exclude, "test/long/**", ...WITH_DOUBLES],
        },
      },
      { extends: true, test: { name: "isolated", include: WITH_DOUBLES } },
    ],
  },
});
