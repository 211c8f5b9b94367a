/**
 * Before each file of the kernel and e2e projects: the namespace that they share is as empty as a new one. A file that leaves a
 * route behind must not make the next one fail. It refuses to run anywhere but in the place that scripts/run-tests.mjs makes.
 */
import { spawnSync } from "node:child_process";

if (process.env["BERTH_TEST_PLACE"] !== "1") {
  throw new Error(
    "kernel and e2e tests change links, routes and nftables: run them by `node scripts/run-tests.mjs PROJECT`",
  );
}

const RESET = `
  ip -all netns delete
  for link in $(ls /proc/sys/net/ipv4/conf); do
    case $link in all|default|lo) ;; *) ip link del "$link" 2>/dev/null ;; esac
  done
  ip route flush table all scope global type unicast 2>/dev/null
  for type in blackhole unreachable prohibit; do ip route flush table all type $type 2>/dev/null; done
  ip rule flush
  ip rule add priority 32766 lookup main
  ip rule add priority 32767 lookup default
  nft flush ruleset
  ip link set lo up
`;

spawnSync("sh", ["-c", RESET], { stdio: "ignore" });
