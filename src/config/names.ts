/** Names that look like settings and are none: which of ours was meant, and which are Kubernetes' own doing. */

/** Changes of one letter (put in, left out, other) that lead from one text to the other; case does not count. */
export function editDistance(left: string, right: string): number {
  const a = left.toUpperCase();
  const b = right.toUpperCase();
  let above = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row += 1) {
    const current = [row];
    for (let column = 1; column <= b.length; column += 1) {
      const other = a[row - 1] === b[column - 1] ? 0 : 1;
      current.push(
        Math.min((above[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1, (above[column - 1] ?? 0) + other),
      );
    }
    above = current;
  }
  return above[b.length] ?? 0;
}

/**
 * The known name that was most likely meant, or null when none is near. `likely` lets a fifth of the letters differ, or up to two words
 * be left out (BERTH_SWEEP_SECONDS, BERTH_MAX_PODS); `sure` an eighth of the letters, for names that may well be somebody else's
 * (POD_IP is not POD_MTU).
 */
export function nearestName(name: string, known: readonly string[], asked: "likely" | "sure"): string | null {
  const distanceMax = asked === "likely" ? Math.max(3, name.length / 5) : Math.max(1, name.length / 8);
  const longer = asked === "likely" ? known.filter((candidate) => wordsLeftOut(name, candidate) <= 2) : [];
  const [first, second] = longer;
  // One letter that differs is likelier than a word, but two words in common are likelier than three letters.
  const close = known.find((candidate) => editDistance(name, candidate) <= 2);
  if (close === undefined && first !== undefined && second === undefined) return first;
  let best: { name: string; distance: number } | null = null;
  for (const candidate of known) {
    if (Math.abs(candidate.length - name.length) > distanceMax) continue;
    const distance = editDistance(name, candidate);
    if (best === null || distance < best.distance) best = { name: candidate, distance };
  }
  return best !== null && best.distance <= distanceMax ? best.name : null;
}

/** How many words `full` has beside those of `name`, which it has in the same order; Infinity where it has not. */
function wordsLeftOut(name: string, full: string): number {
  const words = name.split("_");
  const fullWords = full.split("_");
  let next = 0;
  for (const word of fullWords) if (word === words[next]) next += 1;
  return next === words.length ? fullWords.length - words.length : Infinity;
}

/**
 * Kubernetes puts variables into each pod for each Service of its namespace: a Service named `berth-metrics` makes
 * BERTH_METRICS_SERVICE_HOST, BERTH_METRICS_PORT_61678_TCP_ADDR and more. They are no misspelt settings.
 * Source: Kubernetes documentation, Service, "Environment variables".
 */
export function isServiceVariable(name: string): boolean {
  return /_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)$/.test(
    name,
  );
}

/** `ours` must be known; `theirs` is said aloud when it is not; `perhaps` is said only when a known name is near. */
export function kindOfName(name: string): "ours" | "theirs" | "perhaps" | "other" {
  if (name.startsWith("BERTH_")) return "ours";
  if (/^(WARM_|AWS_VPC_|MINIMUM_IP|AWS_MANAGE_ENI)/i.test(name)) return "theirs";
  if (
    /^(BERTH|ENABLE_|DISABLE_|MAX_ENI|IP_COOL|POD_|MIN_|WARM|ADDITIONAL_ENI|ENI_CONFIG|INTROSPECTION_|HOST_CNI_|AWS_|ANNOTATE_|MANAGE_|NETWORK_POLICY_|CLUSTER_)/i.test(
      name,
    )
  )
    return "perhaps";
  return "other";
}
