/** What a demo tells: a line for each step on stderr or stdout, and at the end a table, or one JSON object. */

export type Check = { readonly name: string; readonly ok: boolean; readonly detail: string };

export type Tally = {
  nodes: number;
  pods: number;
  adds: number;
  heldAdds: number;
  failedAdds: number;
  pingsSent: number;
  lostPings: number;
  leakedEnis: number;
  leakedAddresses: number;
  leakedKernelObjects: number;
};

export type Report = {
  readonly tally: Tally;
  readonly checks: Check[];
  /** A step begins. */
  readonly step: (text: string) => void;
  /** What was promised, whether it held, and the figures that show it. */
  readonly check: (name: string, ok: boolean, detail: string) => void;
  readonly note: (text: string) => void;
};

export function createReport(write: (text: string) => void): Report {
  const began = performance.now();
  const checks: Check[] = [];
  const stamp = (): string => `${((performance.now() - began) / 1_000).toFixed(1).padStart(5)} s`;
  return {
    checks,
    tally: {
      nodes: 0,
      pods: 0,
      adds: 0,
      heldAdds: 0,
      failedAdds: 0,
      pingsSent: 0,
      lostPings: 0,
      leakedEnis: 0,
      leakedAddresses: 0,
      leakedKernelObjects: 0,
    },
    step: (text) => write(`${stamp()}  ${text}\n`),
    note: (text) => write(`         ${text}\n`),
    check: (name, ok, detail) => {
      checks.push({ name, ok, detail });
      write(`         ${ok ? "ok  " : "FAIL"} ${name}${detail === "" ? "" : ` (${detail})`}\n`);
    },
  };
}

export function printTable(report: Report, wallSeconds: number): string {
  const width = Math.max(...report.checks.map((check) => check.name.length));
  const rows = report.checks.map(
    (check) => `  ${check.ok ? "ok  " : "FAIL"}  ${check.name.padEnd(width)}  ${check.detail}`,
  );
  const { tally } = report;
  const failed = report.checks.filter((check) => !check.ok).length;
  return [
    "",
    ...rows,
    "",
    `  ${tally.adds} ADDs (${tally.heldAdds} held for an address, ${tally.failedAdds} failed), ${tally.pingsSent} pings (${tally.lostPings} lost),`,
    `  leaked: ${tally.leakedEnis} ENIs, ${tally.leakedAddresses} addresses, ${tally.leakedKernelObjects} kernel objects`,
    `  ${report.checks.length - failed} of ${report.checks.length} checks passed in ${wallSeconds.toFixed(1)} s`,
    "",
  ].join("\n");
}

export function printJson(report: Report, wallSeconds: number, ok: boolean): string {
  const checks = report.checks.map(({ name, ok, detail }) => ({ name, ok, detail }));
  return `${JSON.stringify({ ok, ...report.tally, wallSeconds: Number(wallSeconds.toFixed(1)), checks })}\n`;
}
