/** DescribeInstanceTypes: the network limits of each type, and nothing that the emulator's table does not know. */
import { err } from "../../lib/result.ts";
import type { XmlObject } from "../ec2-xml.ts";
import { invalidInstanceType } from "../failures.ts";
import { filtered, page } from "../filters.ts";
import { type InstanceType, instanceTypes } from "../instance-types.ts";
import { list } from "../parameters.ts";
import { type Operation, read } from "./operation.ts";

export const describeInstanceTypes: Operation = {
  effect: "read",
  parameters: ["InstanceType", "Filter", "MaxResults", "NextToken"],
  notEmulated: ["IncludeUnsupportedInRegion"],
  run(call) {
    const asked = list(call.parameters, "InstanceType");
    const missing = asked.filter((name) => !instanceTypes().has(name));
    if (missing.length > 0) return err(invalidInstanceType(missing));
    const all = [...instanceTypes().values()].map((type, index) => ({
      ...type,
      serial: index + 1,
      tags: {},
    }));
    const chosen = asked.length > 0 ? all.filter((type) => asked.includes(type.name)) : all;
    const matching = filtered(chosen, call.parameters, {
      "instance-type": ({ name }) => [name],
      hypervisor: ({ hypervisor }) => (hypervisor === null ? [] : [hypervisor]),
      "bare-metal": ({ bareMetal }) => [String(bareMetal)],
      "network-info.maximum-network-interfaces": ({ eniCountMax }) => [String(eniCountMax)],
      "network-info.maximum-network-cards": ({ networkCards }) => [String(networkCards.length)],
      "network-info.ipv4-addresses-per-interface": ({ ipv4SlotsPerEni }) => [String(ipv4SlotsPerEni)],
    });
    if (!matching.ok) return matching;
    // The whole list never comes in one answer: without MaxResults a page is 100 long.
    const parameters = call.parameters.has("MaxResults")
      ? call.parameters
      : new Map(call.parameters).set("MaxResults", "100");
    const paged = page(matching.value, parameters, { least: 5, most: 100, unpagedMost: 100 });
    if (!paged.ok) return paged;
    return read(call, {
      instanceTypeSet: paged.value.items.map(describeType),
      nextToken: paged.value.nextToken,
    });
  },
};

function describeType(type: InstanceType): XmlObject {
  return {
    instanceType: type.name,
    bareMetal: type.bareMetal,
    hypervisor: type.hypervisor ?? undefined,
    networkInfo: {
      maximumNetworkInterfaces: type.eniCountMax,
      maximumNetworkCards: type.networkCards.length,
      defaultNetworkCardIndex: type.defaultNetworkCard,
      networkCards: type.networkCards.map((count, networkCardIndex) => ({
        networkCardIndex,
        maximumNetworkInterfaces: count,
      })),
      ipv4AddressesPerInterface: type.ipv4SlotsPerEni,
      ipv6AddressesPerInterface: type.ipv4SlotsPerEni,
      ipv6Supported: true,
      enaSupport: type.hypervisor === "xen" ? "supported" : "required",
    },
  };
}
