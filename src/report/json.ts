/** The object that `--json` prints. */

/** A number that is not finite becomes null: JSON has no word for it. */
export const jsonText = (report: object): string => `${JSON.stringify(report, null, 2)}\n`;
