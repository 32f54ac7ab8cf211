/** A folder of a store as a separate store. */
import type { Store } from "../src/core/io.ts";

/** @param folder  a path in the store that ends with `/` */
export function folderStore(store: Store, folder: string): Store {
  return {
    url: `${store.url}/${folder.slice(0, -1)}`,
    list: async () =>
      (await store.list())
        .filter(({ path }) => path.startsWith(folder))
        .map(({ path, size }) => ({ path: path.slice(folder.length), size })),
    open: (path) => store.open(folder + path),
  };
}
