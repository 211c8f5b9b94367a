/** How our ENIs are named and tagged: as the incumbent does it, so that its leak scan, the operator's and ours know one another's. */
import type { CreateEniRequest } from "../core/model/ec2.ts";
import { CLUSTER_TAG, CREATED_AT_TAG, DESCRIPTION_PREFIX, OWNER_TAG } from "../core/model/eni-names.ts";
import { printWallTime } from "../lib/time.ts";

const MANAGER_TAG = "eks:eni:owner";

export type TagSettings = {
  readonly clusterName: string | null; // CLUSTER_NAME
  readonly additionalTags: ReadonlyMap<string, string>; // ADDITIONAL_ENI_TAGS
};

/** The operator's tags, then ours, which win: a setting must not disown an ENI. Keys of Kubernetes' domain are ours alone. */
export function tagsOfNewEni(request: CreateEniRequest, settings: TagSettings): ReadonlyMap<string, string> {
  const tags = new Map<string, string>();
  for (const [key, value] of settings.additionalTags) {
    if (!key.includes("k8s.amazonaws.com")) tags.set(key, value);
  }
  tags.set(OWNER_TAG, request.instance);
  tags.set(CREATED_AT_TAG, printWallTime(request.createdAt));
  if (settings.clusterName !== null) {
    tags.set(CLUSTER_TAG, settings.clusterName);
    tags.set(MANAGER_TAG, "amazon-vpc-cni");
  }
  return tags;
}

export function descriptionOfNewEni(request: CreateEniRequest): string {
  return `${DESCRIPTION_PREFIX}${request.instance}`;
}

/** In the SDK's shape. */
export function tagList(tags: ReadonlyMap<string, string>): { Key: string; Value: string }[] {
  return [...tags].map(([Key, Value]) => ({ Key, Value }));
}
