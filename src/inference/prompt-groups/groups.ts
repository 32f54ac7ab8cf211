/** Deals prompts to passes: as many of the next prompts as the memory holds. A prompt is never divided. */

/**
 * Groups prompts that follow each other.
 *
 * @param count number of prompts
 * @param fits  whether the prompts [first, first + count) fit together; then fewer of them fit too
 * @returns for each group its first prompt and the number of prompts; a number of 0: not even this prompt alone fits
 */
export async function groupPrompts(
  count: number,
  fits: (first: number, count: number) => Promise<boolean>,
): Promise<readonly { readonly first: number; readonly count: number }[]> {
  const groups: { first: number; count: number }[] = [];
  let guess = count;
  for (let first = 0; first < count; ) {
    const size = await largestThat((some) => fits(first, some), count - first, guess);
    groups.push({ first, count: size });
    first += Math.max(1, size);
    guess = size;
  }
  return groups;
}

/**
 * The largest number from 0 to `most` that fits, if every smaller number fits too.
 *
 * @param guess where the search begins: near the result, it takes few questions
 */
export async function largestThat(
  fits: (count: number) => Promise<boolean>,
  most: number,
  guess = most,
): Promise<number> {
  let [fitting, tooMany] = [0, most + 1];
  for (let [step, at] = [1, Math.min(Math.max(1, guess), most)]; at > fitting && at < tooMany; step *= 2) {
    if (await fits(at)) {
      fitting = at;
      at = Math.min(at + step, most);
    } else {
      tooMany = at;
      at = Math.max(at - step, 1);
    }
  }
  while (tooMany - fitting > 1) {
    const middle = Math.floor((fitting + tooMany) / 2);
    if (await fits(middle)) fitting = middle;
    else tooMany = middle;
  }
  return fitting;
}
