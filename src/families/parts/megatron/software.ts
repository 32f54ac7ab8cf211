/** The software of a record: `config` of NeMo 2's model.yaml, `model` of Megatron-Bridge's run_config.yaml, args of Megatron-LM. */
export type Software = "nemo2" | "bridge" | "megatron";
