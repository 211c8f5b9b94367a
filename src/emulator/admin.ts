/** The admin door, `/_emulator/...`, JSON: faults, the committed world, launches. For tests and people; EC2 has nothing like it. */
import type { Engine } from "./engine.ts";
import { FAULT_KINDS, type Fault } from "./faults.ts";
import { printCidr4 } from "../lib/ip.ts";
import type { LaunchOptions } from "./seeder.ts";
import type { World } from "./world.ts";

type AdminRequest = { readonly method: string; readonly path: string; readonly body: string };
type AdminReply = { readonly status: number; readonly json: unknown };

export function answerAdmin(engine: Engine, request: AdminRequest): AdminReply {
  const route = `${request.method} ${request.path}`;
  try {
    switch (route) {
      case "GET /_emulator/world":
        return { status: 200, json: worldAsJson(engine.world()) };
      case "POST /_emulator/faults": {
        const fault = parseFault(request.body);
        engine.fault(fault);
        return { status: 200, json: { ok: true } };
      }
      case "DELETE /_emulator/faults":
        engine.clearFaults();
        return { status: 200, json: { ok: true } };
      case "POST /_emulator/launch":
        return { status: 200, json: engine.seed.launch(JSON.parse(request.body) as LaunchOptions) }; // Checked by the seeder's asserts.
      default:
        return { status: 404, json: { error: `no such door: ${route}` } };
    }
  } catch (cause) {
    return { status: 400, json: { error: String(cause) } };
  }
}

function parseFault(body: string): Fault {
  const value: unknown = JSON.parse(body);
  if (
    typeof value !== "object" ||
    value === null ||
    !("kind" in value) ||
    !FAULT_KINDS.has(String(value.kind))
  ) {
    throw new Error(`a fault has a kind, one of ${[...FAULT_KINDS.keys()].join(", ")}`);
  }
  return value as Fault; // The kind is right; its numbers and names are the script's own affair.
}

function worldAsJson(world: World): unknown {
  return {
    vpcs: [...world.vpcs.values()].map((vpc) => ({ ...vpc, cidrs: vpc.cidrs.map(printCidr4) })),
    subnets: [...world.subnets.values()].map(({ space, ...subnet }) => ({
      ...subnet,
      cidr: printCidr4(space.cidr),
      freeCount: space.freeCount,
    })),
    groups: [...world.groups.values()],
    enis: [...world.enis.values()],
    instances: [...world.instances.values()].map((instance) => ({ ...instance, type: instance.type.name })),
  };
}
