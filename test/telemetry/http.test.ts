import { mkdtempSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { connect, createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import * as fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { type Door, type Doors, json, openDoors, type PageMaker, plain } from "../../src/telemetry/http.ts";
import { createLog } from "../../src/telemetry/log.ts";
import { daemonDoors, type PageSources } from "../../src/telemetry/pages.ts";
import { arbNodeState } from "../support/arbitraries.ts";

let folder = "";
let doors: Doors | null = null;
const lines: Record<string, unknown>[] = [];
const log = createLog({
  level: "DEBUG",
  file: null,
  write: (line) => lines.push(JSON.parse(line) as Record<string, unknown>),
  repeatWindowMs: 0,
});

beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), "berth-http-"));
  lines.length = 0;
});
afterEach(async () => {
  await doors?.close();
  doors = null;
  rmSync(folder, { recursive: true });
});

const anyPort = { kind: "tcp", host: "127.0.0.1", port: 0 } as const;
const onePage = new Map([["/page", () => plain(200, "here\n")]]);

function portOf(name: string): number {
  const address = doors?.addressOf(name);
  if (address?.kind !== "tcp") throw new Error(`door ${name} is not open`);
  return address.port;
}

type Answer = { readonly status: number; readonly body: string };

function ask(
  where: { port: number } | { socketPath: string },
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asked = request(
      {
        host: "127.0.0.1",
        ...where,
        path,
        method: options.method ?? "GET",
        headers: options.headers ?? {},
        agent: false,
      },
      (response) => {
        let body = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          body += chunk;
        });
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
      },
    );
    asked.on("error", reject);
    asked.end(options.body);
  });
}

describe("a door", () => {
  const open = async (door: Partial<Door>) => {
    doors = await openDoors(
      [{ name: "door", address: anyPort, pages: onePage, private: false, ...door }],
      log,
    );
  };

  test.each([
    ["/page", {}, 200],
    ["/page?x=1", {}, 200],
    ["/page", { method: "HEAD" }, 200],
    ["/other", {}, 404],
    ["/page", { method: "POST" }, 405],
    ["/page", { method: "DELETE" }, 405],
    ["/page", { body: "x", headers: { "content-length": "1" } }, 413],
  ])("answers %s %j with %i", async (path, options, status) => {
    await open({});
    expect((await ask({ port: portOf("door") }, path, options)).status).toBe(status);
  });

  test("answers 500 where a page cannot be made, logs why, and goes on", async () => {
    await open({
      pages: new Map<string, PageMaker>([
        ["/broken", () => Promise.reject(new Error("secret reason"))],
        ["/page", () => plain(200, "here\n")],
      ]),
    });
    const answer = await ask({ port: portOf("door") }, "/broken");
    expect(answer.status).toBe(500);
    expect(answer.body).not.toContain("secret reason");
    expect(lines).toContainEqual(expect.objectContaining({ message: "http page failed", path: "/broken" }));
    expect((await ask({ port: portOf("door") }, "/page")).status).toBe(200);
  });

  test("refuses headers beyond its bound", async () => {
    await open({});
    const answer = await ask({ port: portOf("door") }, "/page", {
      headers: { "x-long": "x".repeat(10_000) },
    });
    expect(answer.status).toBe(431);
  });

  test("cuts a client that never ends its request", async () => {
    await open({ requestTimeoutMs: 100 });
    const client = connect(portOf("door"), "127.0.0.1");
    client.write("GET /page HTTP/1.1\r\nhost: x\r\n");
    const ended = await new Promise<string>((resolve) => {
      let text = "";
      client.on("data", (chunk) => {
        text += chunk.toString();
      });
      client.on("close", () => resolve(text));
    });
    expect(ended).toMatch(/^HTTP\/1\.1 408 /);
  });

  test("whose port is taken says so, and opens when the other one is gone", async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, "127.0.0.1", resolve));
    const { port } = other.address() as AddressInfo; // A TCP server's address is one.
    vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] });
    try {
      await open({ address: { kind: "tcp", host: "127.0.0.1", port } });
      expect(lines).toContainEqual(
        expect.objectContaining({ level: "warn", message: "http door could not open", code: "EADDRINUSE" }),
      );
      expect(doors?.addressOf("door")).toBe(null);
      await new Promise<void>((resolve) => other.close(() => resolve()));
      await vi.advanceTimersByTimeAsync(5_000);
    } finally {
      vi.useRealTimers();
    }
    await expect.poll(() => doors?.addressOf("door")).toMatchObject({ kind: "tcp", port });
    expect((await ask({ port }, "/page")).status).toBe(200);
  });

  test("that shows pods stays shut on any address but loopback", async () => {
    await open({ address: { kind: "tcp", host: "0.0.0.0", port: 0 }, private: true });
    expect(doors?.addressOf("door")).toBe(null);
    expect(lines).toContainEqual(
      expect.objectContaining({ level: "error", message: "http door stays shut", reason: "not-loopback" }),
    );
  });

  test("that shows pods turns away who comes by another name, as a web page in a browser on the node would", async () => {
    await open({ private: true });
    const where = { port: portOf("door") };
    expect((await ask(where, "/page", { headers: { host: "evil.example:80" } })).status).toBe(403);
    expect((await ask(where, "/page", { headers: { host: "localhost:80" } })).status).toBe(200);
  });

  test("on a Unix socket is root's alone, and its path outlives the door before it", async () => {
    const path = join(folder, "run", "state.sock");
    const door = { name: "door", address: { kind: "unix", path }, private: true } as const;
    const first = await openDoors([{ ...door, pages: new Map([["/page", () => plain(200, "first")]]) }], log);
    doors = await openDoors([{ ...door, pages: new Map([["/page", () => plain(200, "second")]]) }], log);
    expect((statSync(path).mode & 0o777).toString(8)).toBe("600");
    expect((statSync(join(folder, "run")).mode & 0o777).toString(8)).toBe("700");
    await first.close();
    expect(await ask({ socketPath: path }, "/page")).toEqual({ status: 200, body: "second" });
  });

  test("on a Unix socket opens over what a dead daemon of the same process id left", async () => {
    const path = join(folder, "state.sock");
    writeFileSync(`${path}.${process.pid}`, "");
    writeFileSync(path, "");
    await open({ address: { kind: "unix", path } });
    expect((await ask({ socketPath: path }, "/page")).status).toBe(200);
  });

  test("closes at once though a client keeps its connection", async () => {
    await open({ pages: new Map([["/slow", () => new Promise<never>(() => undefined)]]) });
    const asked = ask({ port: portOf("door") }, "/slow").catch((error: unknown) => error);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const began = performance.now();
    await doors?.close();
    doors = null;
    expect(performance.now() - began).toBeLessThan(2_000);
    expect(await asked).toBeInstanceOf(Error);
  });
});

describe("the daemon's doors", () => {
  const [state] = fc.sample(
    arbNodeState.filter((each) => each.allocations.size > 1 && each.enis.size > 1),
    { numRuns: 1, seed: 3 },
  );
  if (state === undefined) throw new Error("no sample");

  const sources = (changes: Partial<PageSources> = {}): PageSources => ({
    metrics: { text: async () => "berth_build_info 1\n", contentType: "text/plain; version=0.0.4" },
    healthy: () => ({ ok: true, reasons: [] }),
    ready: () => ({ ok: false, reasons: ["waits for the instance metadata service"] }),
    report: () => ({ ready: false }),
    state: () => state,
    routeTable: () => 254,
    settings: { WARM_ENI_TARGET: "1", AWS_VPC_ENI_MTU: "9001" },
    ...changes,
  });
  const open = async (changes: Partial<PageSources> = {}) => {
    const addresses = {
      metrics: anyPort,
      probe: anyPort,
      introspection: anyPort,
      stateSocketPath: join(folder, "s"),
    };
    doors = await openDoors(daemonDoors(addresses, sources(changes)), log);
  };
  const page = async (door: string, path: string): Promise<unknown> =>
    JSON.parse((await ask({ port: portOf(door) }, path)).body);

  test("serve metrics, probes with their reasons, and state, each where it belongs", async () => {
    await open();
    expect((await ask({ port: portOf("metrics") }, "/metrics")).body).toBe("berth_build_info 1\n");
    expect((await ask({ port: portOf("probe") }, "/healthz")).status).toBe(200);
    expect(await ask({ port: portOf("probe") }, "/readyz")).toEqual({
      status: 503,
      body: "waits for the instance metadata service\n",
    });
    expect(await page("introspection", "/state")).toEqual({ ready: false });
    expect((await ask({ socketPath: join(folder, "s") }, "/state")).status).toBe(200);
    for (const door of ["metrics", "probe"]) {
      for (const path of ["/state", "/v1/enis", "/v1/pods", "/v1/ipamd-env-settings"]) {
        expect((await ask({ port: portOf(door) }, path)).status).toBe(404);
      }
    }
  });

  test("serve the incumbent's pages in its shape, without container ids", async () => {
    await open();
    const text = (await ask({ port: portOf("introspection") }, "/v1/enis")).body;
    const cards = JSON.parse(text) as Record<
      string,
      { TotalIPs: number; AssignedIPs: number; ENIs: Record<string, object> }
    >;
    const enis = Object.assign({}, ...Object.values(cards).map((card) => card.ENIs)) as Record<
      string,
      object
    >;
    expect(Object.keys(enis).sort()).toEqual([...state.enis.keys()].sort());
    const addresses = [...state.enis.values()].flatMap((eni) => [...eni.addresses.values()]);
    expect(Object.values(cards).reduce((sum, card) => sum + card.TotalIPs, 0)).toBe(addresses.length);
    expect(Object.values(cards).reduce((sum, card) => sum + card.AssignedIPs, 0)).toBe(
      addresses.filter((address) => address.kind === "allocated").length,
    );
    for (const eni of Object.values(enis)) {
      expect(Object.keys(eni).sort()).toEqual([
        "AvailableIPv4Cidrs",
        "DeviceNumber",
        "ID",
        "IPv6Cidrs",
        "IsEFA",
        "IsExcludedForPodIPs",
        "IsPrimary",
        "IsTrunk",
        "RouteTableID",
        "SubnetID",
      ]);
    }
    for (const allocation of state.allocations.values()) {
      expect(text).toContain(`"${allocation.ip}"`);
      expect(text).not.toContain(allocation.key.containerId);
    }
    expect(await page("introspection", "/v1/networkutils-env-settings")).toEqual({ AWS_VPC_ENI_MTU: "9001" });
    expect(await page("introspection", "/v1/ipamd-env-settings")).toMatchObject({ WARM_ENI_TARGET: "1" });
    expect(await page("introspection", "/v1/eni-configs")).toBeTypeOf("object");
    expect(await page("introspection", "/v1/pods")).toBeTypeOf("object");
    expect(await page("introspection", "/")).toEqual({
      AvailableCommands: expect.arrayContaining(["/state", "/v1/enis"]),
    });
  });

  test("say 503 for the node's pages while the daemon recovers", async () => {
    await open({ state: () => null });
    expect((await ask({ port: portOf("introspection") }, "/v1/enis")).status).toBe(503);
  });
});

test("a JSON page is JSON", () => {
  expect(json({ a: [1] })).toEqual({
    status: 200,
    contentType: "application/json",
    body: '{\n  "a": [\n    1\n  ]\n}\n',
  });
});
