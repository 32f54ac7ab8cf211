/** Why a family has no form in Megatron. */

/** @param lacks what Megatron cannot say of the family */
export const withoutMegatron = (lacks: string): Readonly<Record<string, string>> => {
  const why = `no software of NVIDIA stores this family, and Megatron has no setting for ${lacks}`;
  return { megatron: why, "megatron-ranks": why };
};
