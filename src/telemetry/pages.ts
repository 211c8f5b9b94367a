/** Which pages the daemon serves, and on which door. */
import type { NodeState } from "../core/state/node-state.ts";
import type { Eni } from "../core/model/eni.ts";
import { type Door, type DoorAddress, json, type PageMaker, plain } from "./http.ts";
import { incumbentEnis, incumbentPods } from "./introspection.ts";
import type { Metrics } from "./metrics.ts";

/** `ok` with no reasons, or the reasons why not, for the one who reads the probe's answer. */
export type Health = { readonly ok: boolean; readonly reasons: readonly string[] };

export type PageSources = {
  readonly metrics: Pick<Metrics, "text" | "contentType">;
  /** Alive: the loops run and the event loop answers. Never false because EC2 or the API server is away. */
  readonly healthy: () => Health;
  /** Ready for ADDs: recovered, and the socket is open. */
  readonly ready: () => Health;
  /** What /state tells, as JSON. */
  readonly report: () => unknown;
  /** Null until the daemon has recovered. */
  readonly state: () => NodeState | null;
  readonly routeTable: (eni: Eni) => number; // The number of an ENI's routing table.
  /** The texts of the settings in force, by environment name. */
  readonly settings: Readonly<Record<string, string>>;
  /** Each setting with its value and where it comes from. */
  readonly origins?: () => unknown;
  /** The name of this node's ENIConfig; "" where there is none. */
  readonly eniConfigName?: () => string;
};

export type DoorAddresses = {
  readonly metrics: DoorAddress | null; // Null: switched off.
  readonly probe: DoorAddress;
  readonly introspection: DoorAddress | null;
  readonly stateSocketPath: string;
};

export function daemonDoors(addresses: DoorAddresses, sources: PageSources): readonly Door[] {
  const doors: Door[] = [
    { name: "probe", address: addresses.probe, pages: probePages(sources), private: false },
    {
      name: "state",
      address: { kind: "unix", path: addresses.stateSocketPath },
      pages: new Map([...probePages(sources), ...metricsPages(sources), ...statePages(sources)]),
      private: true,
    },
  ];
  if (addresses.metrics !== null) {
    doors.push({ name: "metrics", address: addresses.metrics, pages: metricsPages(sources), private: false });
  }
  if (addresses.introspection !== null) {
    doors.push({
      name: "introspection",
      address: addresses.introspection,
      pages: statePages(sources),
      private: true,
    });
  }
  return doors;
}

type Pages = ReadonlyMap<string, PageMaker>;

function metricsPages({ metrics }: PageSources): Pages {
  return new Map<string, PageMaker>([
    ["/metrics", async () => ({ status: 200, contentType: metrics.contentType, body: await metrics.text() })],
  ]);
}

function probePages({ healthy, ready }: PageSources): Pages {
  const page = ({ ok, reasons }: Health) => plain(ok ? 200 : 503, ok ? "ok\n" : `${reasons.join("\n")}\n`);
  return new Map<string, PageMaker>([
    ["/healthz", () => page(healthy())],
    ["/readyz", () => page(ready())],
  ]);
}

function statePages(sources: PageSources): Pages {
  const { report, state, routeTable } = sources;
  const ofState =
    (view: (state: NodeState) => unknown): PageMaker =>
    () => {
      const seen = state();
      return seen === null ? plain(503, "The daemon is recovering.\n") : json(view(seen));
    };
  const pages = new Map<string, PageMaker>([
    ["/state", () => json(report())],
    ["/v1/enis", ofState((seen) => incumbentEnis(seen, routeTable))],
    ["/v1/eni-configs", () => json({ name: sources.eniConfigName?.() ?? "" })],
    ["/v1/networkutils-env-settings", () => json(settingsWith(sources.settings, NETWORK_SETTING))],
    ["/v1/ipamd-env-settings", () => json(settingsWith(sources.settings, /./))],
    ["/settings", () => json(sources.origins?.() ?? {})],
    ["/v1/pods", ofState(incumbentPods)],
  ]);
  pages.set("/", () => json({ AvailableCommands: [...pages.keys()].filter((path) => path !== "/") }));
  return pages;
}

/** The incumbent's networkutils package read these; ipamd's page had the others, and ours has all. */
const NETWORK_SETTING =
  /SNAT|MTU|VETHPREFIX|CONNMARK|NODE_PORT|SERVICE_CIDRS|CUSTOM_NETWORK|RPFILTER|ENFORCING_MODE/;

function settingsWith(settings: Readonly<Record<string, string>>, pattern: RegExp): Record<string, string> {
  return Object.fromEntries(Object.entries(settings).filter(([name]) => pattern.test(name)));
}
