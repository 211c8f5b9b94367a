/** How ENIs of ours are named and tagged in EC2: the AWS VPC CNI's names, so that either finds what the other left. Source: its docs/README. */

export const OWNER_TAG = "node.k8s.amazonaws.com/instance_id";
export const CREATED_AT_TAG = "node.k8s.amazonaws.com/createdAt";
export const NO_MANAGE_TAG = "node.k8s.amazonaws.com/no_manage";
export const CLUSTER_TAG = "cluster.k8s.amazonaws.com/name";

/** Before the instance's id. Capital K8S: the leak scan matches it to the letter. */
export const DESCRIPTION_PREFIX = "aws-K8S-";
