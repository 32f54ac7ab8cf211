/** The kinds of reports. They stand apart from the writers, because every command knows the kinds and few runs write one. */

export const REPORT_KINDS = ["junit", "sarif", "html", "md", "json"] as const;
export type ReportKind = (typeof REPORT_KINDS)[number];

/** The file of each report that is wanted. */
export type ReportFiles = Readonly<Partial<Record<ReportKind, string>>>;
