/** The object that `--json` prints. */

/** NaN and infinities become null, because JSON has no spelling for them. */
export const jsonText = (report: object): string => `${JSON.stringify(report, null, 2)}\n`;
