/** The agent's walks as the handlers of the plugin's socket, with what each took counted. */
import { addSandbox } from "../agent/add-sandbox.ts";
import { blockedBy, type Agent } from "../agent/agent.ts";
import { checkSandbox, collectGarbage } from "../agent/check-sandbox.ts";
import { deleteSandbox } from "../agent/delete-sandbox.ts";
import type { Handlers } from "../cni/dispatch.ts";
import { prevResultDifferences, type Attached } from "../cni/result.ts";
import type { NodeError } from "../core/model/error.ts";
import type { Capabilities } from "../cni/netconf.ts";
import { gatewayOf } from "../core/plumbing/eni-host.ts";
import { POD_GATEWAY_TEXT } from "../core/plumbing/names.ts";
import type { DataPath } from "../core/plumbing/settings.ts";
import { whyNoAddress } from "../core/pool/why.ts";
import { takeCensus } from "../core/state/census.ts";
import type { Allocation } from "../core/state/node-state.ts";
import { ipv4, printCidr4 } from "../lib/ip.ts";
import { err, ok, type Result } from "../lib/result.ts";
import { after, type Instant } from "../lib/time.ts";
import type { Counters } from "./state-report.ts";

/** Time that an answer needs after the address is there: record, plumb, print, and the way back. */
const ANSWER_MS = 1_500;

export type HandlerOptions = {
  readonly addHoldMs: number;
  readonly statusWhenEmpty: "ready" | "not-ready";
  readonly stopping: () => boolean;
  /** Counts a walk as running until the returned function is called. */
  readonly begins: (walk: "add" | "del") => () => void;
};

export function createHandlers(
  agent: Agent,
  options: HandlerOptions,
): { readonly handlers: Handlers; readonly counters: () => Counters } {
  const { ports } = agent;
  const counts = { adds: 0, failedAdds: 0, heldAdds: 0, dels: 0 };

  const add: Handlers["add"] = async (request, signal, place) => {
    const ended = options.begins("add");
    const began = ports.time.now();
    let heldSince: Instant | null = null;
    let heldMs = 0;
    const watched = {
      leave: (): void => {
        heldSince = ports.time.now();
        place.leave();
      },
      take: async (): Promise<void> => {
        heldMs = heldSince === null ? 0 : ports.time.now() - heldSince;
        await place.take();
      },
    };
    const { key, netnsPath, pod, requestId, config } = request;
    const { plumbedBy } = config;
    const refused =
      plumbedBy === null ? refusedCapability(agent.settings.plumbing.dataPath, config.capabilities) : null;
    if (refused !== null) {
      ended();
      counts.adds += 1;
      counts.failedAdds += 1;
      ports.observed({ kind: "add", outcome: refused.code, durationMs: 0, heldMs: 0 });
      return err(refused);
    }
    const deadline = earlier(after(request.deadline, -ANSWER_MS), after(began, options.addHoldMs));
    const added = await addSandbox(
      agent,
      {
        key,
        netnsPath,
        pod,
        requestId,
        deadline,
        place: watched,
        ...(plumbedBy === null ? {} : { plumbedBy }),
      },
      signal,
    );
    counts.adds += 1;
    if (heldSince !== null) counts.heldAdds += 1;
    if (!added.ok && added.error.code !== "cancelled") counts.failedAdds += 1;
    ended();
    const outcome = added.ok ? "ok" : added.error.code;
    ports.observed({ kind: "add", outcome, durationMs: ports.time.now() - began, heldMs });
    return added.ok ? ok(attachedOf(agent, added.value, netnsPath)) : added;
  };

  const del: Handlers["del"] = async ({ key }) => {
    const ended = options.begins("del");
    const began = ports.time.now();
    const deleted = await deleteSandbox(agent, key);
    ended();
    const durationMs = ports.time.now() - began;
    if (!deleted.ok) {
      ports.observed({ kind: "del", outcome: deleted.error.code, durationMs });
      return deleted;
    }
    counts.dels += 1;
    ports.observed({ kind: "del", outcome: deleted.value === null ? "unknown" : "ok", durationMs });
    return ok({ settled: deleted.value?.linkGone ?? Promise.resolve() });
  };

  const check: Handlers["check"] = async ({ key, netnsPath }, previous) => {
    const checked = await checkSandbox(agent, key, netnsPath);
    if (!checked.ok) return checked;
    const differences = prevResultDifferences(previous, attachedOf(agent, checked.value, netnsPath));
    return differences.length === 0 ? ok(null) : err({ code: "check-failed", differences });
  };

  const status: Handlers["status"] = async () => await Promise.resolve(statusOf(agent, options));

  return {
    handlers: {
      add,
      del,
      check,
      status,
      gc: async ({ network, alive }) => await collectGarbage(agent, network, alive),
    },
    counters: () => ({ ...counts }),
  };
}

/** Success while ADDs can be served. An empty pool is no reason to take the node out of scheduling, unless the operator says so. */
function statusOf(agent: Agent, options: HandlerOptions): Result<null, NodeError> {
  if (options.stopping()) return err({ code: "not-ready", detail: "the daemon is stopping" });
  const blocked = blockedBy(agent);
  if (blocked !== null) return err({ code: "not-ready", detail: blocked });
  if (options.statusWhenEmpty === "ready") return ok(null);
  const now = agent.ports.time.now();
  if (takeCensus(agent.cell.state, now).warm > 0) return ok(null);
  const why = whyNoAddress(agent.cell.state, agent.pool, now);
  return why.blocked === null
    ? ok(null)
    : err({ code: "not-ready", detail: `no address is warm, and none can be had: ${why.detail}` });
}

/**
 * What a pod asks for and an ipvlan pod cannot have: its traffic to the VPC passes neither the node's NAT nor its shaper. We declare both
 * capabilities, so that the runtime tells us, and a pod is not started without what it was promised.
 */
function refusedCapability(
  dataPath: DataPath,
  { portMappings, bandwidth }: Capabilities,
): Extract<NodeError, { code: "config-refused" }> | null {
  if (dataPath !== "ipvlan") return null;
  const instead = "run the pod on a node with BERTH_DATA_PATH=routed";
  const ports = portMappings.filter(({ hostPort }) => hostPort > 0).map(({ hostPort }) => hostPort);
  if (ports.length > 0) {
    const detail = `host port ${ports.join(", ")} cannot be served: an ipvlan pod's traffic passes the node by; use a NodePort Service, hostNetwork, or ${instead}`;
    return { code: "config-refused", key: "runtimeConfig.portMappings", detail };
  }
  if (bandwidth !== null && (bandwidth.ingressRate > 0 || bandwidth.egressRate > 0)) {
    const detail = `bandwidth limits cannot be kept: an ipvlan pod's traffic passes the node by; remove the annotations kubernetes.io/ingress-bandwidth and egress-bandwidth, or ${instead}`;
    return { code: "config-refused", key: "runtimeConfig.bandwidth", detail };
  }
  return null;
}

function attachedOf(agent: Agent, allocation: Allocation, netnsPath: string): Attached {
  const { ip, key, podMac, hostLink, hostMac, mtu, ipvlan, plumbedBy } = allocation;
  if (ipvlan !== undefined) {
    const { parentMac, subnet, nodeIp, vpcCidrs } = ipvlan;
    const gateway = gatewayOf({ subnetCidr: subnet });
    return {
      ip,
      prefixLength: subnet.prefixLength,
      gateway,
      defaultGateway: nodeIp,
      routes: vpcCidrs.map((cidr) => ({ to: printCidr4(cidr), gateway })),
      ifName: key.ifName,
      netnsPath,
      podMac: parentMac,
      hostLink,
      hostMac,
      mtu,
    };
  }
  const eni = plumbedBy === undefined ? undefined : agent.cell.state.enis.get(allocation.eni);
  if (eni !== undefined) {
    // The main plugin puts the gateway on its own link. The VPC's router, subnet + 1, must not become the node's own address; the
    // address of the pod's ENI is that already, and lies in the subnet, as main plugins expect.
    return {
      ip,
      prefixLength: eni.subnetCidr.prefixLength,
      gateway: eni.primaryIp,
      addressOnly: true,
      ifName: key.ifName,
      netnsPath,
      podMac,
      hostLink,
      hostMac,
      mtu,
    };
  }
  return {
    ip,
    gateway: ipv4(POD_GATEWAY_TEXT),
    ifName: key.ifName,
    netnsPath,
    podMac,
    hostLink,
    hostMac,
    mtu,
  };
}

function earlier(left: Instant, right: Instant): Instant {
  return left < right ? left : right;
}
