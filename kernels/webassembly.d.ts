/** Types of the WebAssembly interface that this project uses; TypeScript has them in its DOM library only. */
declare namespace WebAssembly {
  class Memory {
    constructor(limits: { initial: number; maximum: number; shared: true });
    readonly buffer: SharedArrayBuffer;
    /** by `pages` of 64 KiB; returns the number there were */
    grow(pages: number): number;
  }
  interface Module {
    readonly [brand: symbol]: never;
  }
  interface Instance {
    readonly exports: Readonly<Record<string, unknown>>;
  }
  function compile(bytes: Uint8Array): Promise<Module>;
  function instantiate(module: Module, imports: Readonly<Record<string, object>>): Promise<Instance>;
}
