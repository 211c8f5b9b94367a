/**
 * The nft table of an ipvlan pod as nfnetlink messages: one batch that makes it anew, and what compares the kernel's with ours. A program
 * a pod would cost more than all the rest of an ADD. Source: linux/netfilter/nf_tables.h.
 */
import * as structs from "netlink/dist/structs.js";
import { assert } from "../lib/assert.ts";
import type { PodFilter } from "../core/plumbing/object.ts";
import { PACKET_FILTER_TABLE } from "../core/plumbing/names.ts";
import { podFilterChains, type PodFilterChain, type PodFilterStep } from "../core/plumbing/pod-filter.ts";
import { AF_INET, NLM_F_DUMP, type NetlinkRequest } from "./messages.ts";

const NFNL_SUBSYS_NFTABLES = 10; // linux/netfilter/nfnetlink.h
const NFNL_MSG_BATCH_BEGIN = 0x10;
const NFNL_MSG_BATCH_END = 0x11;
const NFT_MSG = { newTable: 0, delTable: 2, newChain: 3, newRule: 6, getRule: 7 } as const;
const NLM_F_CREATE = 0x400;
const NLM_F_APPEND = 0x800;
const NFGENMSG_SIZE = 4;

const HOOKS = { prerouting: 0, output: 3, postrouting: 4 } as const; // enum nf_inet_hooks
const NF_ACCEPT = 1;
const NF_DROP = 0;
const NFT_REG_VERDICT = 0;
const REGISTER = 1; // NFT_REG_1; all rules make do with one.
const META = { mark: 3, iifname: 6, oifname: 7 } as const; // enum nft_meta_keys
const CT = { direction: 1, mark: 3 } as const; // enum nft_ct_keys
const CMP = { equal: 0, notEqual: 1 } as const;
const NETWORK_HEADER = 1; // NFT_PAYLOAD_NETWORK_HEADER
const SOURCE_ADDRESS = { offset: 12, length: 4 } as const; // struct iphdr
const IFNAMSIZ = 16;
const NFTA_RULE_CHAIN = 2;
const NFTA_RULE_EXPRESSIONS = 4;

/**
 * All of the table in one transaction, an older one replaced: to be sent in one piece (Connection.transaction). The kernel answers
 * ENOENT or EOPNOTSUPP where it lacks a part of nf_tables; then nothing was made.
 */
export function podFilterRequests(filter: PodFilter): readonly NetlinkRequest[] {
  const table = textAttribute(1, PACKET_FILTER_TABLE);
  const newTable = request(NFT_MSG.newTable, NLM_F_CREATE, table, `nft add table ip ${PACKET_FILTER_TABLE}`);
  const chains = podFilterChains(filter);
  return [
    bracket(NFNL_MSG_BATCH_BEGIN),
    newTable, // So that there is one to delete.
    request(NFT_MSG.delTable, 0, table, `nft delete table ip ${PACKET_FILTER_TABLE}`),
    newTable,
    ...chains.map((chain) => chainRequest(table, chain)),
    ...chains.flatMap(({ name, rules }) => rules.map((steps) => ruleRequest(table, name, steps))),
    bracket(NFNL_MSG_BATCH_END),
  ];
}

/** Shows the table's rules; ENOENT never comes: a table that is not there has none. */
export const podFilterDump: NetlinkRequest = request(
  NFT_MSG.getRule,
  NLM_F_DUMP,
  textAttribute(1, PACKET_FILTER_TABLE),
  "nft list table",
);

/** A rule as one comparable line: its chain and its expressions, whatever order their attributes come in. Null where it cannot be read. */
export function parsePodRule(message: structs.NetlinkMessage): string | null {
  try {
    return ruleLine(message.data.subarray(NFGENMSG_SIZE));
  } catch {
    return null;
  }
}

/** What `parsePodRule` gives for each rule of the table as it should be. */
export function podFilterLines(filter: PodFilter): readonly string[] {
  return podFilterRequests(filter)
    .filter(({ type }) => type === ((NFNL_SUBSYS_NFTABLES << 8) | NFT_MSG.newRule))
    .map(({ body }) => ruleLine(Buffer.from(body).subarray(NFGENMSG_SIZE)));
}

function ruleLine(attributes: Buffer): string {
  let chain = "";
  const expressions: string[] = [];
  structs.parseAttributes(attributes, ({ type, data }) => {
    if (type === NFTA_RULE_CHAIN) chain = structs.getString(data);
    if (type === NFTA_RULE_EXPRESSIONS)
      structs.parseAttributes(data, (element) => expressions.push(expressionText(element.data)));
  });
  return `${chain}: ${expressions.join(", ")}`;
}

function expressionText(element: Buffer): string {
  let name = "";
  const values: string[] = [];
  structs.parseAttributes(element, ({ type, data }) => {
    if (type === 1) name = structs.getString(data);
    if (type !== 2) return;
    structs.parseAttributes(data, (each) =>
      values.push(
        HOLDS_DATA.has(`${name} ${each.type}`)
          ? `${each.type}{${dataText(each.data)}}`
          : `${each.type}=${each.data.toString("hex")}`,
      ),
    );
  });
  return `${name}(${values.sort().join(" ")})`;
}

/** Attributes that hold attributes: in its answers the kernel does not flag them. */
const HOLDS_DATA: ReadonlySet<string> = new Set(["cmp 3", "bitwise 4", "bitwise 5", "immediate 2"]);

/** NFTA_DATA_VALUE or NFTA_DATA_VERDICT. */
function dataText(attributes: Buffer): string {
  let text = "";
  structs.parseAttributes(attributes, ({ type, data }) => {
    if (type === 1) text = data.toString("hex");
    if (type === 2)
      structs.parseAttributes(data, (verdict) => (text += `${verdict.type}=${verdict.data.toString("hex")}`));
  });
  return text;
}

function chainRequest(table: Buffer, chain: PodFilterChain): NetlinkRequest {
  const { name, type, hook, priority } = chain;
  const attributes = Buffer.concat([
    table,
    textAttribute(3, name),
    nested(4, numberAttribute(1, HOOKS[hook]), numberAttribute(2, priority)),
    numberAttribute(5, NF_ACCEPT),
    textAttribute(7, type),
  ]);
  return request(
    NFT_MSG.newChain,
    NLM_F_CREATE,
    attributes,
    `nft add chain ip ${PACKET_FILTER_TABLE} ${name}`,
  );
}

function ruleRequest(table: Buffer, chain: string, steps: readonly PodFilterStep[]): NetlinkRequest {
  const expressions = steps.flatMap(expressionsOf).map((expression) => nested(1, expression));
  const attributes = Buffer.concat([
    table,
    textAttribute(NFTA_RULE_CHAIN, chain),
    nested(NFTA_RULE_EXPRESSIONS, ...expressions),
  ]);
  const what = `nft add rule ip ${PACKET_FILTER_TABLE} ${chain}`;
  return request(NFT_MSG.newRule, NLM_F_CREATE | NLM_F_APPEND, attributes, what);
}

function expressionsOf(step: PodFilterStep): readonly Buffer[] {
  switch (step.kind) {
    case "link": {
      assert(step.name.length < IFNAMSIZ, "a link's name fits the kernel's 16 bytes");
      const name = Buffer.alloc(IFNAMSIZ);
      name.write(step.name);
      return [loadMeta(step.end === "in" ? META.iifname : META.oifname), compare(CMP.equal, name)];
    }
    case "original-direction":
      return [loadCt(CT.direction), compare(CMP.equal, Buffer.from([0]))]; // IP_CT_DIR_ORIGINAL
    case "not-from":
      return [
        expression(
          "payload",
          numberAttribute(1, REGISTER),
          numberAttribute(2, NETWORK_HEADER),
          numberAttribute(3, SOURCE_ADDRESS.offset),
          numberAttribute(4, SOURCE_ADDRESS.length),
        ),
        compare(CMP.notEqual, Buffer.from(step.ip.split(".").map(Number))),
      ];
    case "connection-marked":
      return [loadCt(CT.mark), bitwise(step.bit, 0), compare(CMP.equal, hostU32(step.bit))];
    case "mark-connection":
      return [
        loadCt(CT.mark),
        bitwise(~step.bit >>> 0, step.bit),
        expression("ct", numberAttribute(2, CT.mark), numberAttribute(4, REGISTER)),
      ];
    case "mark-packet":
      return [
        loadMeta(META.mark),
        bitwise(~step.bit >>> 0, step.bit),
        expression("meta", numberAttribute(2, META.mark), numberAttribute(3, REGISTER)),
      ];
    case "drop":
      return [
        expression(
          "immediate",
          numberAttribute(1, NFT_REG_VERDICT),
          nested(2, nested(2, numberAttribute(1, NF_DROP))),
        ),
      ];
    case "masquerade":
      return [expression("masq")];
  }
}

function loadMeta(key: number): Buffer {
  return expression("meta", numberAttribute(2, key), numberAttribute(1, REGISTER));
}

function loadCt(key: number): Buffer {
  return expression("ct", numberAttribute(2, key), numberAttribute(1, REGISTER));
}

function compare(operation: number, value: Buffer): Buffer {
  return expression(
    "cmp",
    numberAttribute(1, REGISTER),
    numberAttribute(2, operation),
    nested(3, attribute(1, value, false)),
  );
}

/** register = register & keep ^ flip, on a mark. */
function bitwise(keep: number, flip: number): Buffer {
  return expression(
    "bitwise",
    numberAttribute(1, REGISTER),
    numberAttribute(2, REGISTER),
    numberAttribute(3, 4),
    nested(4, attribute(1, hostU32(keep), false)),
    nested(5, attribute(1, hostU32(flip), false)),
    numberAttribute(6, 0), // NFT_BITWISE_BOOL
  );
}

/** NFTA_EXPR_NAME and NFTA_EXPR_DATA. */
function expression(name: string, ...attributes: readonly Buffer[]): Buffer {
  return Buffer.concat([textAttribute(1, name), nested(2, ...attributes)]);
}

function bracket(type: number): NetlinkRequest {
  // struct nfgenmsg: the resource is the subsystem, big-endian.
  return { type, flags: 0, body: Buffer.from([0, 0, 0, NFNL_SUBSYS_NFTABLES]), what: "nft transaction" };
}

function request(message: number, flags: number, attributes: Buffer, what: string): NetlinkRequest {
  const header = Buffer.from([AF_INET, 0, 0, 0]);
  return {
    type: (NFNL_SUBSYS_NFTABLES << 8) | message,
    flags,
    body: Buffer.concat([header, attributes]),
    what,
  };
}

/** Numbers are big-endian here; what stands in a register is the host's. */
function numberAttribute(type: number, value: number): Buffer {
  const data = Buffer.alloc(4);
  data.writeInt32BE(value | 0);
  return attribute(type, data, false);
}

function hostU32(value: number): Buffer {
  return structs.putU32(value);
}

function textAttribute(type: number, text: string): Buffer {
  return attribute(type, Buffer.from(`${text}\0`), false);
}

function nested(type: number, ...attributes: readonly Buffer[]): Buffer {
  return attribute(type, Buffer.concat(attributes), true);
}

function attribute(type: number, data: Buffer, nested: boolean): Buffer {
  return Buffer.concat(structs.pad([...structs.formatAttribute({ type, data, nested })]));
}
