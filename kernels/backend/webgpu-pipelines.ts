/** Compiles each shader text once. */

interface Pipeline {
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
}

/** @returns a function that compiles a shader text; `reads` and `writes`: number of its arrays */
export function createPipelines(
  device: GPUDevice,
): (code: string, reads: number, writes: number) => Pipeline {
  const pipelines = new Map<string, Pipeline>();

  const layoutFor = (reads: number, writes: number) => {
    const types: readonly GPUBufferBindingType[] = [
      "uniform",
      ...Array<GPUBufferBindingType>(reads).fill("read-only-storage"),
      ...Array<GPUBufferBindingType>(writes).fill("storage"),
    ];
    const entries = types.map((type, binding) => ({ binding, visibility: 4, buffer: { type } })); // 4: compute
    return device.createBindGroupLayout({ entries });
  };

  return (code, reads, writes) => {
    const known = pipelines.get(code);
    if (known !== undefined) return known;
    const layout = layoutFor(reads, writes);
    const pipeline = device.createComputePipeline({
      layout: device.createPipelineLayout({ bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ code }), entryPoint: "main" },
    });
    pipelines.set(code, { pipeline, layout });
    return { pipeline, layout };
  };
}
