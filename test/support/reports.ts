/** Reports of every kind, good, bad and hostile. */
import type { Finding } from "../../src/core/finding.ts";
import type { Subject } from "../../src/report/subject.ts";
import { CONVERTED, DIFFERENT, METRICS, VERIFIED } from "./fake-library.ts";

/** What breaks out of attributes, elements, CDATA, comments, tables and terminals. */
export const HOSTILE = `"><script>alert(1)</script>' ]]> --> | <img src="https://evil.example/x" onerror=x> \u0000\u001b[31m\u202e \ud800 @all`;

const finding = (rule: string, i = 0): Finding => ({
  rule,
  severity: i % 2 === 0 ? "error" : "danger",
  at: { file: HOSTILE, tensor: `${HOSTILE}${i}`, offset: i },
  message: HOSTILE,
});

const hostile = {
  ...DIFFERENT,
  device: HOSTILE,
  findings: [HOSTILE],
  findingDetails: [finding("file-differs"), { ...finding("suspect"), severity: "note" as const }],
  firstDivergence: { layer: 0, kind: HOSTILE, door: HOSTILE, tensors: [HOSTILE] },
  certificate: {
    ...{ sha256: HOSTILE, tool: HOSTILE, reference: true, signedBy: HOSTILE },
    ...{
      verdict: "within" as const,
      limits: { [HOSTILE]: 1 },
      quality: { klMean: 0.01, klP99: 0.1, top1: 0.99 },
    },
  },
  tensors: [
    {
      ...{ role: HOSTILE, layer: 0, a: HOSTILE, b: `${HOSTILE}2`, dtypeA: HOSTILE, dtypeB: "BF16" },
      outcome: "different" as const,
    },
  ],
  rungs: [
    {
      rung: "bytes" as const,
      verdict: "different" as const,
      metrics: {
        ...{ roles: 182, recast: 0, bytes: 3145728, different: 1 },
        differences: [{ role: HOSTILE, tensors: [HOSTILE], message: HOSTILE }],
      },
    },
    {
      rung: "logits" as const,
      verdict: "unproven" as const,
      metrics: {
        ...METRICS,
        layers: [{ layer: 0, kind: HOSTILE, driftRelL2: Infinity, localRelL2: Number.NaN }],
        positions: {
          ...{ kl: [Infinity, 0.1], per: 1 },
          worst: [
            {
              ...{ position: 0, id: 3, kl: Infinity, bestA: 1, bestB: null },
              text: { before: HOSTILE, token: HOSTILE, bestA: HOSTILE, bestB: null },
            },
          ],
        },
        controls: [
          { layer: 0, kind: HOSTILE, door: HOSTILE, mutation: HOSTILE, caught: false, matrix: true },
        ],
      },
    },
  ],
};

export const MANY = 10_000;

export const SUBJECTS: Readonly<Record<string, Subject>> = {
  good: { command: "verify", a: "a", b: "models/b", report: VERIFIED },
  bad: { command: "verify", a: "a", b: "models/b", report: DIFFERENT },
  hostile: { command: "verify", a: HOSTILE, b: HOSTILE, report: hostile },
  converted: { command: "convert", report: CONVERTED },
  unverified: { command: "recast", report: { ...CONVERTED, verification: null } },
  sound: { command: "check", address: "models/a", report: { ok: true, findings: [] } },
  unsafe: {
    command: "scan",
    address: "models/a",
    report: { ok: false, findings: [finding("pickle-danger", 1)] },
  },
  many: {
    command: "scan",
    address: "/elsewhere/a",
    report: { ok: false, findings: Array.from({ length: MANY }, (_, i) => finding("damaged", i)) },
  },
  unequal: {
    command: "diff",
    ...{ a: "a", b: HOSTILE },
    report: {
      equal: false,
      tensors: [
        {
          ...{ role: HOSTILE, layer: 1, a: HOSTILE, b: null, equal: false },
          ...{ maxAbs: null, relL2: Infinity, ulp: null, error: HOSTILE },
        },
      ],
      config: [{ key: HOSTILE, a: HOSTILE, b: null }],
      sidecars: [{ path: HOSTILE, a: "1", b: "2", lines: { from: 1, a: [HOSTILE], b: [HOSTILE] } }],
    },
  },
  stopped: {
    command: "stopped",
    ran: "verify",
    addresses: [HOSTILE],
    report: { error: { code: "HEADER_INVALID", message: HOSTILE, at: { file: HOSTILE }, next: HOSTILE } },
  },
};
