"""The refusals that a CNI meets, as boto3 reads them: code, HTTP status, text. Each row is what people were shown by EC2: its error
codes page, and issue threads of the AWS VPC CNI, Cilium, Terraform, Ansible and others. Nothing is taken from the emulator.

In: JUDGE_SEED. Out: one JSON object, {"rows", "wrong"}.
"""

import json
import os
import re
import urllib.request

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

SEED = json.loads(os.environ["JUDGE_SEED"])
NO_ENI, NO_INSTANCE = "eni-0123456789abcdef0", "i-0123456789abcdef0"
SUBNET, SPARE, INSTANCE = SEED["subnetId"], SEED["spareSubnetId"], SEED["instanceId"]
ec2 = boto3.client(
    "ec2",
    endpoint_url=SEED["url"],
    region_name="eu-west-1",
    aws_access_key_id="AKIABOTO",
    aws_secret_access_key="unchecked",
    # Nothing is checked before it is sent, and nothing is sent twice: the refusals are EC2's own.
    config=Config(retries={"total_max_attempts": 1}, parameter_validation=False),
)


def fault(**what):
    body = json.dumps(what).encode()
    asked = urllib.request.Request(f"{SEED['url']}/_emulator/faults", data=body, method="POST")
    urllib.request.urlopen(asked).read()


def create(**more):
    return ec2.create_network_interface(**{"SubnetId": SUBNET, **more})["NetworkInterface"]


def eni(**more):
    return create(**more)["NetworkInterfaceId"]


def attach(made, instance, index):
    out = ec2.attach_network_interface(NetworkInterfaceId=made, InstanceId=instance, DeviceIndex=index)
    return out["AttachmentId"]


def launch(**more):
    asked = {"ImageId": "ami-0123456789abcdef0", "InstanceType": "m5.large", "MinCount": 1, "MaxCount": 1}
    primary = {"DeviceIndex": 0, "SubnetId": SUBNET, **more}
    return ec2.run_instances(**asked, NetworkInterfaces=[primary])["Instances"][0]["InstanceId"]


def assign(made, **what):
    return ec2.assign_private_ip_addresses(NetworkInterfaceId=made, **what)


def unassign(made, *ips):
    return ec2.unassign_private_ip_addresses(NetworkInterfaceId=made, PrivateIpAddresses=list(ips))


def primary_of(instance):
    wanted = [{"Name": "attachment.instance-id", "Values": [instance]}]
    return ec2.describe_network_interfaces(Filters=wanted)["NetworkInterfaces"][0]


def limit_of_enis():
    instance = launch()
    for index in (1, 2, 3):
        attach(eni(), instance, index)


def in_full_subnet(what):
    def row():
        made = eni(SubnetId=SPARE)
        fault(kind="fill-subnet", subnetId=SPARE, leaveFree=0)
        try:
            what(made)
        finally:
            fault(kind="empty-subnet", subnetId=SPARE)

    return row


def in_fragmented_subnet(what):
    def row():
        made = eni(SubnetId=SPARE)
        fault(kind="fragment-subnet", subnetId=SPARE)
        try:
            what(made)
        finally:
            fault(kind="empty-subnet", subnetId=SPARE)

    return row


def throttled():
    fault(kind="throttle", action="DescribeVpcs", times=1)
    ec2.describe_vpcs()


def taken_index():
    instance = launch()
    for _ in range(2):
        attach(eni(), instance, 1)


def attached_twice():
    made = eni()
    for _ in range(2):
        attach(made, launch(), 1)


def delete_attached():
    made = eni()
    attach(made, launch(), 1)
    ec2.delete_network_interface(NetworkInterfaceId=made)


def service_attachment():
    fault(kind="foreign-eni", subnetId=SUBNET, instanceId=INSTANCE, deviceIndex=2, description="ELB", managedBy="amazon-elb")
    wanted = [{"Name": "description", "Values": ["ELB"]}]
    found = ec2.describe_network_interfaces(Filters=wanted)["NetworkInterfaces"][0]
    ec2.detach_network_interface(AttachmentId=found["Attachment"]["AttachmentId"])


def detach_primary():
    ec2.detach_network_interface(AttachmentId=primary_of(launch())["Attachment"]["AttachmentId"])


def owned_address(**more):
    assign(eni(), PrivateIpAddresses=["10.0.6.7"], AllowReassignment=True)
    assign(eni(), PrivateIpAddresses=["10.0.6.7"], **more)


def move_primary():
    create(PrivateIpAddress="10.0.6.8")
    assign(eni(), PrivateIpAddresses=["10.0.6.8"], AllowReassignment=True)


def address_in_use():
    for _ in range(2):
        create(PrivateIpAddress="10.0.6.9")


def terminated():
    instance = launch()
    ec2.terminate_instances(InstanceIds=[instance])
    attach(eni(), instance, 1)


def other_token():
    for text in ("one", "two"):
        create(ClientToken="errors-token", Description=text)


def unassign_primary():
    made = create(PrivateIpAddress="10.0.6.5")["NetworkInterfaceId"]
    unassign(made, "10.0.6.5")


def too_many_on_attached():
    made = eni()
    attach(made, launch(), 1)
    assign(made, SecondaryPrivateIpAddressCount=10)


def too_many_prefixes():
    assign(primary_of(launch())["NetworkInterfaceId"], Ipv4PrefixCount=10)


def fill_region():
    for _ in range(500):
        create()


INVALID = "InvalidParameterValue"
FULL = "There aren't sufficient free Ipv4 addresses or prefixes"
# What happens, code, status, text (a string, or a pattern where ids or lists stand in it), how to get there.
ROWS = [
    ("bucket empty", "RequestLimitExceeded", 503, "Request limit exceeded.", throttled),
    ("subnet without a free address, create", "InsufficientFreeAddressesInSubnet", 400, "The specified subnet does not have enough free addresses to satisfy the request.", in_full_subnet(lambda _: create(SubnetId=SPARE))),
    ("more asked for than the subnet has, assign", INVALID, 400, FULL, lambda: assign(eni(SubnetId=SEED["lastSubnetId"]), SecondaryPrivateIpAddressCount=14)),
    ("more asked for than the subnet has, create", INVALID, 400, FULL, lambda: create(SubnetId=SEED["lastSubnetId"], SecondaryPrivateIpAddressCount=14)),
    ("no aligned free /28, assign", "InsufficientCidrBlocks", 400, "The specified subnet does not have enough free cidr blocks to satisfy the request.", in_fragmented_subnet(lambda made: assign(made, Ipv4PrefixCount=1))),
    ("no aligned free /28, create", "InsufficientCidrBlocks", 400, "The specified subnet does not have enough free cidr blocks to satisfy the request.", in_fragmented_subnet(lambda _: create(SubnetId=SPARE, Ipv4PrefixCount=1))),
    ("too many addresses on an ENI", "PrivateIpAddressLimitExceeded", 400, "Number of private addresses will exceed limit.", too_many_on_attached),
    ("too many prefixes on an ENI", "PrivateIpAddressLimitExceeded", 400, "Number of private addresses will exceed limit.", too_many_prefixes),
    ("too many addresses at launch", "InvalidInterface.IpAddressLimitExceeded", 400, re.compile("."), lambda: launch(SecondaryPrivateIpAddressCount=10)),
    ("too many ENIs on an instance", "AttachmentLimitExceeded", 400, "Interface count 4 exceeds the limit for m5.large", limit_of_enis),
    ("device index taken", INVALID, 400, re.compile(r"Instance 'i-\w+' already has an interface attached at device index '1'\."), taken_index),
    ("attach what is attached elsewhere", "InvalidNetworkInterface.InUse", 400, re.compile(r"Interface: \[eni-\w+\] in use\."), attached_twice),
    ("delete an attached ENI", INVALID, 400, re.compile(r"Network interface 'eni-\w+' is currently in use\."), delete_attached),
    ("ENI unknown, describe", "InvalidNetworkInterfaceID.NotFound", 400, f"The networkInterface ID '{NO_ENI}' does not exist", lambda: ec2.describe_network_interfaces(NetworkInterfaceIds=[NO_ENI])),
    ("ENI unknown, delete", "InvalidNetworkInterfaceID.NotFound", 400, f"The networkInterface ID '{NO_ENI}' does not exist", lambda: ec2.delete_network_interface(NetworkInterfaceId=NO_ENI)),
    ("ENI unknown, assign", "InvalidNetworkInterfaceID.NotFound", 400, f"The networkInterface ID '{NO_ENI}' does not exist", lambda: assign(NO_ENI, SecondaryPrivateIpAddressCount=1)),
    ("ENI id malformed", "InvalidNetworkInterfaceId.Malformed", 400, re.compile("eni-xyz"), lambda: ec2.delete_network_interface(NetworkInterfaceId="eni-xyz")),
    ("attachment unknown", "InvalidAttachmentID.NotFound", 400, "The interface attachment 'eni-attach-0123456789abcdef0' does not exist.", lambda: ec2.detach_network_interface(AttachmentId="eni-attach-0123456789abcdef0")),
    ("detach the primary ENI", "OperationNotPermitted", 400, "The network interface at device index 0 and networkCard index 0 cannot be detached.", detach_primary),
    ("touch a service's attachment", "OperationNotPermitted", 400, "You are not allowed to manage 'ela-attach' attachments.", service_attachment),
    ("assign an address of another ENI", INVALID, 400, "[10.0.6.7] assigned, but move is not allowed.", owned_address),
    ("move another ENI's primary address", INVALID, 400, "secondary-addresses", move_primary),
    ("create with an address in use", "InvalidIPAddress.InUse", 400, "The specified address is already in use.", address_in_use),
    ("address outside the subnet", INVALID, 400, "Address does not fall within the subnet's address range", lambda: create(PrivateIpAddress="10.0.99.9")),
    ("reserved address", INVALID, 400, "Address is in subnet's reserved address range", lambda: create(PrivateIpAddress="10.0.0.2")),
    ("no address", INVALID, 400, "invalid value for parameter address: ten", lambda: create(PrivateIpAddress="ten")),
    ("unassign what is not there", INVALID, 400, re.compile(r"Some of the specified addresses are not assigned to interface eni-\w+"), lambda: unassign(eni(), "10.0.6.66")),
    ("unassign the primary", INVALID, 400, "Value (10.0.6.5) for parameter privateIpAddress is invalid. The primary IP address of an interface cannot be unassigned.", unassign_primary),
    ("assign nothing", "InvalidParameter", 400, re.compile(r"One of privateIpAddressSet or .* must be specified\."), lambda: assign(eni())),
    ("assign by two ways", "InvalidParameterCombination", 400, re.compile(r"You may specify one and only one of .*"), lambda: assign(eni(), PrivateIpAddresses=["10.0.6.77"], SecondaryPrivateIpAddressCount=1)),
    ("description too long", INVALID, 400, re.compile("description"), lambda: create(Description="x" * 256)),
    ("subnet in use deleted", "DependencyViolation", 400, f"The subnet '{SUBNET}' has dependencies and cannot be deleted.", lambda: ec2.delete_subnet(SubnetId=SUBNET)),
    ("group in use deleted", "DependencyViolation", 400, f"resource {SEED['groupId']} has a dependent object", lambda: ec2.delete_security_group(GroupId=SEED["groupId"])),
    ("group and subnet in two VPCs", INVALID, 400, f"Security group {SEED['strangeGroupId']} and subnet {SUBNET} belong to different networks.", lambda: create(Groups=[SEED["strangeGroupId"]])),
    ("instance unknown", "InvalidInstanceID.NotFound", 400, f"The instance ID '{NO_INSTANCE}' does not exist", lambda: attach(eni(), NO_INSTANCE, 1)),
    ("subnet unknown", "InvalidSubnetID.NotFound", 400, "The subnet ID 'subnet-0123456789abcdef0' does not exist", lambda: create(SubnetId="subnet-0123456789abcdef0")),
    ("group unknown", "InvalidGroup.NotFound", 400, re.compile("sg-0123456789abcdef0"), lambda: create(Groups=["sg-0123456789abcdef0"])),
    ("attach to a terminated instance", "IncorrectState", 400, re.compile(r"Instance 'i-\w+' is not 'running'\."), terminated),
    ("dry run", "DryRunOperation", 412, "Request would have succeeded, but DryRun flag is set.", lambda: create(DryRun=True)),
    ("client token with other arguments", "IdempotentParameterMismatch", 400, "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).", other_token),
    ("a page of four", "InvalidMaxResults", 400, re.compile("4"), lambda: ec2.describe_network_interfaces(MaxResults=4)),
    ("a token of nobody", "InvalidPaginationToken", 400, re.compile("."), lambda: ec2.describe_network_interfaces(MaxResults=5, NextToken="nobody's")),
    ("201 filter values", "FilterLimitExceeded", 400, re.compile("200"), lambda: ec2.describe_network_interfaces(Filters=[{"Name": "description", "Values": [str(at) for at in range(201)]}])),
    ("51 tags", "TagLimitExceeded", 400, re.compile("50"), lambda: ec2.create_tags(Resources=[eni()], Tags=[{"Key": f"k{at}", "Value": ""} for at in range(51)])),
    ("ENI quota of the Region", "NetworkInterfaceLimitExceeded", 400, re.compile("."), fill_region),  # Last: nothing can be made after it.
]


def main():
    wrong = []
    for what, code, status, text, get_there in ROWS:
        try:
            get_there()
            wrong.append(f"{what}: not refused")
        except ClientError as refusal:
            error, http = refusal.response["Error"], refusal.response["ResponseMetadata"]
            said = error.get("Message", "")
            right = said == text if isinstance(text, str) else text.search(said) is not None
            if (error["Code"], http["HTTPStatusCode"]) != (code, status) or not right or not http.get("RequestId"):
                wrong.append(f"{what}: {error['Code']} {http['HTTPStatusCode']} {said!r}")
    print(json.dumps({"rows": len(ROWS), "wrong": wrong}))


main()
