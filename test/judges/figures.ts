/** Figures of the judges for `npm run judges -- --json`: each test file leaves its part in the folder that BERTH_JUDGES_FIGURES names. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";

/** `name` is the figures' key in the object that is printed in the end. Nothing is done where nobody collects. */
export function tellFigures(name: string, figures: Readonly<Record<string, unknown>>): void {
  const folder = process.env["BERTH_JUDGES_FIGURES"];
  if (folder !== undefined) writeFileSync(join(folder, `${name}.json`), JSON.stringify(figures));
}
