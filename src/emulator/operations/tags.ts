/** CreateTags, DeleteTags, DescribeTags, and the TagSpecifications of calls that create. */
import { err, ok, type Result } from "../../lib/result.ts";
import {
  type Failure,
  duplicateTagKey,
  invalidResourceId,
  invalidValue,
  missingParameter,
  reservedTagKey,
  tooManyTags,
} from "../failures.ts";
import { type IdKind, notFound } from "../failures.ts";
import { filtered, page } from "../filters.ts";
import { list, type Parameters, structures } from "../parameters.ts";
import { type Tags, tagsChanged, type World } from "../world.ts";
import { changed, type Operation, read, wellFormed } from "./operation.ts";

const TAG_COUNT_MAX = 50;
const RESOURCE_TYPES: readonly (readonly [IdKind, string])[] = [
  ["eni", "network-interface"],
  ["i", "instance"],
  ["subnet", "subnet"],
  ["sg", "security-group"],
  ["vpc", "vpc"],
];

/** Tags that `TagSpecification.N` gives to a resource of `resourceType`. */
export function tagsFor(parameters: Parameters, resourceType: string): Result<Tags, Failure> {
  const tags: Record<string, string> = {};
  for (const specification of structures(parameters, "TagSpecification")) {
    const type = specification.get("ResourceType");
    if (type === undefined) return err(missingParameter("resourceType"));
    const given = tagsOf(specification);
    if (!given.ok) return given;
    if (type === resourceType) Object.assign(tags, given.value);
  }
  return Object.keys(tags).length > TAG_COUNT_MAX ? err(tooManyTags()) : ok(tags);
}

export const createTags: Operation = {
  effect: "write",
  parameters: ["ResourceId", "Tag"],
  notEmulated: [],
  run(call) {
    const ids = resourceIds(call.parameters, call.world);
    if (!ids.ok) return ids;
    const tags = tagsOf(call.parameters);
    if (!tags.ok) return tags;
    if (Object.keys(tags.value).length === 0) return err(missingParameter("tagSet"));
    let { world } = call;
    for (const id of ids.value) {
      const merged = { ...tagsById(world, id), ...tags.value };
      if (Object.keys(merged).length > TAG_COUNT_MAX) return err(tooManyTags());
      world = tagsChanged(world, id, () => merged);
    }
    return changed(world, { return: true });
  },
};

/** Without tags all are deleted but those of AWS; with a value only where it is the same. */
export const deleteTags: Operation = {
  effect: "write",
  parameters: ["ResourceId", "Tag"],
  notEmulated: [],
  run(call) {
    const ids = resourceIds(call.parameters, call.world);
    if (!ids.ok) return ids;
    const asked = structures(call.parameters, "Tag");
    const goes = (key: string, value: string): boolean =>
      asked.length === 0
        ? !key.startsWith("aws:")
        : asked.some((tag) => tag.get("Key") === key && (tag.get("Value") ?? value) === value);
    let { world } = call;
    for (const id of ids.value) {
      world = tagsChanged(world, id, (tags) =>
        Object.fromEntries(Object.entries(tags).filter(([key, value]) => !goes(key, value))),
      );
    }
    return changed(world, { return: true });
  },
};

export const describeTags: Operation = {
  effect: "read",
  parameters: ["Filter", "MaxResults", "NextToken"],
  notEmulated: [],
  run(call) {
    const { vpcs, subnets, groups, enis, instances } = call.world;
    const all = [vpcs, subnets, groups, enis, instances].flatMap((map) => [...map.values()]);
    const rows = all.flatMap((entity) =>
      Object.entries(entity.tags).map(([key, value]) => ({
        serial: 0,
        id: entity.id,
        key,
        value,
        tags: { [key]: value },
      })),
    );
    const typeOf = (id: string): string => RESOURCE_TYPES.find(([kind]) => wellFormed(kind, id))?.[1] ?? "";
    const numbered = rows.map((row, index) => ({ ...row, serial: index + 1 }));
    const matching = filtered(numbered, call.parameters, {
      "resource-id": ({ id }) => [id],
      "resource-type": ({ id }) => [typeOf(id)],
      key: ({ key }) => [key],
      value: ({ value }) => [value],
    });
    if (!matching.ok) return matching;
    const paged = page(matching.value, call.parameters, {
      least: 5,
      most: 1000,
      unpagedMost: Number.POSITIVE_INFINITY,
    });
    if (!paged.ok) return paged;
    const tagSet = paged.value.items.map(({ id, key, value }) => ({
      resourceId: id,
      resourceType: typeOf(id),
      key,
      value,
    }));
    return read(call, { tagSet, nextToken: paged.value.nextToken });
  },
};

function resourceIds(parameters: Parameters, world: World): Result<readonly string[], Failure> {
  const ids = list(parameters, "ResourceId");
  if (ids.length === 0) return err(missingParameter("resourceIdSet"));
  for (const id of ids) {
    const kind = RESOURCE_TYPES.find(([kind]) => wellFormed(kind, id))?.[0];
    if (kind === undefined) return err(invalidResourceId(id));
    if (tagsById(world, id) === null) return err(notFound(kind, [id]));
  }
  return ok([...new Set(ids)]);
}

function tagsById(world: World, id: string): Tags | null {
  const { enis, instances, subnets, groups, vpcs } = world;
  const found = enis.get(id) ?? instances.get(id) ?? subnets.get(id) ?? groups.get(id) ?? vpcs.get(id);
  return found?.tags ?? null;
}

function tagsOf(parameters: Parameters): Result<Tags, Failure> {
  const tags: Record<string, string> = {};
  for (const tag of structures(parameters, "Tag")) {
    const key = tag.get("Key") ?? "";
    const value = tag.get("Value") ?? "";
    if (key === "" || key.length > 128) return err(invalidValue(key, "tagKey"));
    if (value.length > 256) return err(invalidValue(value, "tagValue"));
    if (key.toLowerCase().startsWith("aws:")) return err(reservedTagKey());
    if (Object.hasOwn(tags, key)) return err(duplicateTagKey(key));
    tags[key] = value;
  }
  return ok(tags);
}
