"""Asks the same questions, through boto3, of our emulator and of moto. Each question says what EC2 answers, from AWS's documents and
from threads in which people showed it; moto is a second opinion where it is right, and `moto` says what it answers where it is not.

In: JUDGE_SEED. Out: one JSON object: calls made to the emulator, every question with its answers, and the disagreements.
"""

import json
import os

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from moto.server import ThreadedMotoServer

SEED = json.loads(os.environ["JUDGE_SEED"])
FAST = {"Delay": 0.05, "MaxAttempts": 100}
NO_ENI = "eni-0123456789abcdef0"
QUESTIONS = []


def question(text, ec2, moto=None):
    """`ec2` is the right answer; `moto` differs only where moto is known to be wrong."""

    def register(ask):
        QUESTIONS.append((text, ask, ec2, ec2 if moto is None else moto))
        return ask

    return register


class Place:
    """A client, and ids to stand on."""

    def __init__(self, url, seed=None):
        self.ec2 = boto3.client(
            "ec2",
            endpoint_url=url,
            region_name="eu-west-1",
            aws_access_key_id="AKIABOTO",
            aws_secret_access_key="unchecked",
            config=Config(retries={"total_max_attempts": 1}),
        )
        self.calls = 0
        self.ec2.meta.events.register("before-send.ec2.*", self._count)
        if seed is None:
            vpc = self.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
            zone = {"VpcId": vpc, "AvailabilityZone": "eu-west-1a"}
            groups = self.ec2.describe_security_groups(Filters=[{"Name": "vpc-id", "Values": [vpc]}])
            seed = {
                "vpcId": vpc,
                "subnetId": self.ec2.create_subnet(CidrBlock="10.0.0.0/20", **zone)["Subnet"]["SubnetId"],
                "spareSubnetId": self.ec2.create_subnet(CidrBlock="10.0.32.0/24", **zone)["Subnet"]["SubnetId"],
                "groupId": groups["SecurityGroups"][0]["GroupId"],
            }
        self.vpc, self.subnet, self.spare = seed["vpcId"], seed["subnetId"], seed["spareSubnetId"]
        self.group = seed["groupId"]

    def _count(self, **_):
        self.calls += 1

    def create(self, **more):
        return self.ec2.create_network_interface(SubnetId=self.subnet, **more)["NetworkInterface"]

    def eni(self, **more):
        return self.create(**more)["NetworkInterfaceId"]

    def see(self, eni):
        return self.ec2.describe_network_interfaces(NetworkInterfaceIds=[eni])["NetworkInterfaces"][0]

    def matching(self, *filters, **more):
        wanted = [{"Name": name, "Values": list(values)} for name, *values in filters]
        return self.ec2.describe_network_interfaces(Filters=wanted, **more)["NetworkInterfaces"]

    def instance(self, kind="m5.large", **more):
        out = self.ec2.run_instances(
            ImageId="ami-0123456789abcdef0", InstanceType=kind, MinCount=1, MaxCount=1, SubnetId=self.subnet, **more
        )
        made = out["Instances"][0]["InstanceId"]
        self.ec2.get_waiter("instance_running").wait(InstanceIds=[made], WaiterConfig=FAST)
        return made

    def attach(self, eni, instance, index=1):
        out = self.ec2.attach_network_interface(NetworkInterfaceId=eni, InstanceId=instance, DeviceIndex=index)
        return out["AttachmentId"]

    def assign(self, eni, **what):
        out = self.ec2.assign_private_ip_addresses(NetworkInterfaceId=eni, **what)
        return [each["PrivateIpAddress"] for each in out.get("AssignedPrivateIpAddresses", [])]


# --- ENIs -------------------------------------------------------------------------------------------------------------


@question("state of a new ENI in the answer of Create", "pending", "available")
def _(p):
    return p.create()["Status"]


@question("waiter network_interface_available ends, and the ENI says", "available")
def _(p):
    eni = p.eni()
    p.ec2.get_waiter("network_interface_available").wait(NetworkInterfaceIds=[eni], WaiterConfig=FAST)
    return p.see(eni)["Status"]


@question("three secondary addresses asked for: addresses, primary first", "4, True")
def _(p):
    addresses = p.create(SecondaryPrivateIpAddressCount=3)["PrivateIpAddresses"]
    return f"{len(addresses)}, {addresses[0]['Primary']}"


@question("an explicit primary address", "10.0.3.33")
def _(p):
    return p.create(PrivateIpAddress="10.0.3.33")["PrivateIpAddress"]


@question("a prefix asked for at Create", "1", "0")
def _(p):
    return str(len(p.create(Ipv4PrefixCount=1).get("Ipv4Prefixes", [])))


@question("description, groups, zone, owner's VPC of an ENI", "said, 1 group, eu-west-1a, True")
def _(p):
    seen = p.see(p.eni(Description="said", Groups=[p.group]))
    return f"{seen['Description']}, {len(seen['Groups'])} group, {seen['AvailabilityZone']}, {seen['VpcId'] == p.vpc}"


@question("interface type and source/destination check of an ENI", "interface, True")
def _(p):
    seen = p.see(p.eni())
    return f"{seen['InterfaceType']}, {seen['SourceDestCheck']}"


@question("tags given at Create, read back", "a=1 b=<&>")
def _(p):
    tags = [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "<&>"}]
    eni = p.eni(TagSpecifications=[{"ResourceType": "network-interface", "Tags": tags}])
    return " ".join(sorted(f"{tag['Key']}={tag['Value']}" for tag in p.see(eni)["TagSet"]))


@question("ClientToken and arguments the same twice", "one ENI", "two ENIs")
def _(p):
    same = {"ClientToken": "boto-token", "Description": "token"}
    return "one ENI" if p.eni(**same) == p.eni(**same) else "two ENIs"


@question("ClientToken the same, arguments not", "IdempotentParameterMismatch", "accepted")
def _(p):
    p.eni(ClientToken="boto-other", Description="one")
    p.eni(ClientToken="boto-other", Description="two")
    return "accepted"


@question("an unknown subnet", "InvalidSubnetID.NotFound")
def _(p):
    return p.ec2.create_network_interface(SubnetId="subnet-0123456789abcdef0")["NetworkInterface"]["Status"]


@question("the router's address asked for", "InvalidParameterValue", "accepted")
def _(p):
    p.create(PrivateIpAddress="10.0.0.1")
    return "accepted"


@question("an address in use asked for", "InvalidIPAddress.InUse", "accepted")
def _(p):
    p.create(PrivateIpAddress="10.0.3.44")
    p.create(PrivateIpAddress="10.0.3.44")
    return "accepted"


@question("an unknown ENI described", "InvalidNetworkInterfaceID.NotFound")
def _(p):
    return p.see(NO_ENI)["Status"]


@question("an unknown ENI deleted", "InvalidNetworkInterfaceID.NotFound")
def _(p):
    p.ec2.delete_network_interface(NetworkInterfaceId=NO_ENI)
    return "deleted"


@question("a deleted ENI described", "InvalidNetworkInterfaceID.NotFound")
def _(p):
    eni = p.eni()
    p.ec2.delete_network_interface(NetworkInterfaceId=eni)
    return p.see(eni)["Status"]


@question("description changed", "after")
def _(p):
    eni = p.eni(Description="before")
    p.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, Description={"Value": "after"})
    return p.see(eni)["Description"]


@question("source/destination check switched off", "False")
def _(p):
    eni = p.eni()
    p.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, SourceDestCheck={"Value": False})
    return str(p.see(eni)["SourceDestCheck"])


@question("DryRun", "DryRunOperation")
def _(p):
    p.ec2.create_network_interface(SubnetId=p.subnet, DryRun=True)
    return "made"


# --- Finding ----------------------------------------------------------------------------------------------------------


@question("filter description with a star", "2")
def _(p):
    for name in ("find-one", "find-two", "lose-one"):
        p.eni(Description=name)
    return str(len(p.matching(("description", "find-*"))))


@question("filters tag:KEY and tag-key, both", "1")
def _(p):
    for value in ("x", "y"):
        p.eni(TagSpecifications=[{"ResourceType": "network-interface", "Tags": [{"Key": "found", "Value": value}]}])
    return str(len(p.matching(("tag:found", "x"), ("tag-key", "found"))))


@question("filters subnet-id, vpc-id, status, group-id, availability-zone together with mac-address", "1")
def _(p):
    made = p.create(Groups=[p.group])
    p.ec2.get_waiter("network_interface_available").wait(
        NetworkInterfaceIds=[made["NetworkInterfaceId"]], WaiterConfig=FAST
    )
    return str(
        len(
            p.matching(
                ("subnet-id", p.subnet),
                ("vpc-id", p.vpc),
                ("status", "available"),
                ("group-id", p.group),
                ("availability-zone", "eu-west-1a"),
                ("mac-address", made["MacAddress"]),
            )
        )
    )


@question("filter addresses.private-ip-address of a secondary address", "1", "0")
def _(p):
    made = p.create(SecondaryPrivateIpAddressCount=1)
    return str(len(p.matching(("addresses.private-ip-address", made["PrivateIpAddresses"][1]["PrivateIpAddress"]))))


@question("filter attachment.instance-id", "2")
def _(p):
    instance = p.instance()
    p.attach(p.eni(), instance)
    return str(len(p.matching(("attachment.instance-id", instance))))


@question("filter network-interface-id of two", "2")
def _(p):
    return str(len(p.matching(("network-interface-id", p.eni(), p.eni(), NO_ENI))))


@question("paginator, five a page, over twelve ENIs", "12 in 3 pages", "12 in 1 pages")
def _(p):
    for _each in range(12):
        p.eni(Description="paged")
    pages = p.ec2.get_paginator("describe_network_interfaces").paginate(
        Filters=[{"Name": "description", "Values": ["paged"]}], PaginationConfig={"PageSize": 5}
    )
    sizes = [[each["NetworkInterfaceId"] for each in page["NetworkInterfaces"]] for page in pages]
    return f"{len({each for page in sizes for each in page})} in {len(sizes)} pages"


@question("all instance types by pages: more than 1,000, m5.large once", "True, 1")
def _(p):
    names = [
        kind["InstanceType"]
        for page in p.ec2.get_paginator("describe_instance_types").paginate()
        for kind in page["InstanceTypes"]
    ]
    return f"{len(set(names)) > 1_000}, {names.count('m5.large')}"


@question("limits of m5.large, t3.small, p4d.24xlarge: ENIs x addresses", "3x10 3x4 60x50")
def _(p):
    kinds = p.ec2.describe_instance_types(InstanceTypes=["m5.large", "t3.small", "p4d.24xlarge"])["InstanceTypes"]
    by_name = {kind["InstanceType"]: kind["NetworkInfo"] for kind in kinds}
    return " ".join(
        f"{by_name[name]['MaximumNetworkInterfaces']}x{by_name[name]['Ipv4AddressesPerInterface']}"
        for name in ("m5.large", "t3.small", "p4d.24xlarge")
    )


@question("an unknown instance type described", "InvalidInstanceType")
def _(p):
    p.ec2.describe_instance_types(InstanceTypes=["m5.lage"])
    return "answered"


# --- Attachments ------------------------------------------------------------------------------------------------------


@question("an attached ENI: status, device index, on the instance", "in-use, 1, True")
def _(p):
    instance, eni = p.instance(), p.eni()
    p.attach(eni, instance)
    seen = p.see(eni)
    return f"{seen['Status']}, {seen['Attachment']['DeviceIndex']}, {seen['Attachment']['InstanceId'] == instance}"


@question("attach at a device index that is taken", "InvalidParameterValue", "accepted")
def _(p):
    instance = p.instance()
    p.attach(p.eni(), instance)
    p.attach(p.eni(), instance)
    return "accepted"


@question("attach an ENI that is attached elsewhere", "InvalidNetworkInterface.InUse", "accepted")
def _(p):
    eni = p.eni()
    p.attach(eni, p.instance())
    p.attach(eni, p.instance())
    return "accepted"


@question("attach a third ENI to a type for two", "AttachmentLimitExceeded", "accepted")
def _(p):
    instance = p.instance("t3.micro")
    p.attach(p.eni(), instance, 1)
    p.attach(p.eni(), instance, 2)
    return "accepted"


@question("attach to an unknown instance", "InvalidInstanceID.NotFound")
def _(p):
    p.attach(p.eni(), "i-0123456789abcdef0")
    return "accepted"


@question("attach an unknown ENI", "InvalidNetworkInterfaceID.NotFound")
def _(p):
    p.attach(NO_ENI, p.instance())
    return "accepted"


@question("DeleteOnTermination switched on", "True", "False")
def _(p):
    eni = p.eni()
    change = {"AttachmentId": p.attach(eni, p.instance()), "DeleteOnTermination": True}
    p.ec2.modify_network_interface_attribute(NetworkInterfaceId=eni, Attachment=change)
    return str(p.see(eni)["Attachment"]["DeleteOnTermination"])


@question("detach an unknown attachment", "InvalidAttachmentID.NotFound")
def _(p):
    p.ec2.detach_network_interface(AttachmentId="eni-attach-0123456789abcdef0")
    return "accepted"


@question("detach the primary ENI", "OperationNotPermitted")
def _(p):
    primary = p.matching(("attachment.instance-id", p.instance()))[0]
    p.ec2.detach_network_interface(AttachmentId=primary["Attachment"]["AttachmentId"])
    return "accepted"


@question("a detached ENI becomes, and may be deleted", "available, deleted")
def _(p):
    eni = p.eni()
    p.ec2.detach_network_interface(AttachmentId=p.attach(eni, p.instance()))
    p.ec2.get_waiter("network_interface_available").wait(NetworkInterfaceIds=[eni], WaiterConfig=FAST)
    status = p.see(eni)["Status"]
    p.ec2.delete_network_interface(NetworkInterfaceId=eni)
    return f"{status}, deleted"


@question("delete an attached ENI", "InvalidParameterValue", "deleted")
def _(p):
    eni = p.eni()
    p.attach(eni, p.instance())
    p.ec2.delete_network_interface(NetworkInterfaceId=eni)
    return "deleted"


# --- Addresses --------------------------------------------------------------------------------------------------------


@question("assign two more: addresses in the answer, on the ENI", "2, 4", "4, 4")
def _(p):
    eni = p.eni(SecondaryPrivateIpAddressCount=1)
    listed = p.assign(eni, SecondaryPrivateIpAddressCount=2)
    return f"{len(listed)}, {len(p.see(eni)['PrivateIpAddresses'])}"


@question("assign an explicit address, and it is on the ENI", "True")
def _(p):
    eni = p.eni()
    p.assign(eni, PrivateIpAddresses=["10.0.4.44"])
    return str("10.0.4.44" in [each["PrivateIpAddress"] for each in p.see(eni)["PrivateIpAddresses"]])


@question("assign another ENI's address", "InvalidParameterValue", "accepted")
def _(p):
    p.assign(p.eni(), PrivateIpAddresses=["10.0.4.55"])
    p.assign(p.eni(), PrivateIpAddresses=["10.0.4.55"])
    return "accepted"


@question("assign another ENI's address with AllowReassignment: the other has it still", "False", "True")
def _(p):
    before = p.eni()
    p.assign(before, PrivateIpAddresses=["10.0.4.66"])
    p.assign(p.eni(), PrivateIpAddresses=["10.0.4.66"], AllowReassignment=True)
    return str("10.0.4.66" in [each["PrivateIpAddress"] for each in p.see(before)["PrivateIpAddresses"]])


@question("assign to an unknown ENI", "InvalidNetworkInterfaceID.NotFound")
def _(p):
    p.assign(NO_ENI, SecondaryPrivateIpAddressCount=1)
    return "accepted"


@question("assign nothing", "InvalidParameter", "accepted")
def _(p):
    p.assign(p.eni())
    return "accepted"


@question("unassign what is there: addresses left", "1")
def _(p):
    eni = p.eni()
    p.assign(eni, PrivateIpAddresses=["10.0.4.77"])
    p.ec2.unassign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=["10.0.4.77"])
    return str(len(p.see(eni)["PrivateIpAddresses"]))


@question("unassign what is not there", "InvalidParameterValue", "accepted")
def _(p):
    p.ec2.unassign_private_ip_addresses(NetworkInterfaceId=p.eni(), PrivateIpAddresses=["10.0.4.88"])
    return "accepted"


@question("free addresses of a subnet: lower by those of an ENI with two secondaries", "3")
def _(p):
    def free():
        return p.ec2.describe_subnets(SubnetIds=[p.spare])["Subnets"][0]["AvailableIpAddressCount"]

    before = free()
    p.ec2.create_network_interface(SubnetId=p.spare, SecondaryPrivateIpAddressCount=2)
    return str(before - free())


# --- Instances, tags, surroundings --------------------------------------------------------------------------------------


@question("a launched instance: state, ENIs, device index 0", "running, 1, 0")
def _(p):
    seen = p.ec2.describe_instances(InstanceIds=[p.instance()])["Reservations"][0]["Instances"][0]
    enis = seen["NetworkInterfaces"]
    return f"{seen['State']['Name']}, {len(enis)}, {enis[0]['Attachment']['DeviceIndex']}"


@question("an unknown instance", "InvalidInstanceID.NotFound")
def _(p):
    p.ec2.describe_instances(InstanceIds=["i-0123456789abcdef0"])
    return "answered"


@question("waiter instance_terminated ends; the primary ENI is", "InvalidNetworkInterfaceID.NotFound", "in-use")
def _(p):
    instance = p.instance()
    primary = p.matching(("attachment.instance-id", instance))[0]["NetworkInterfaceId"]
    p.ec2.terminate_instances(InstanceIds=[instance])
    p.ec2.get_waiter("instance_terminated").wait(InstanceIds=[instance], WaiterConfig=FAST)
    return p.see(primary)["Status"]


@question("an ENI without DeleteOnTermination, after its instance", "available", "in-use")
def _(p):
    instance, eni = p.instance(), p.eni()
    p.attach(eni, instance)
    p.ec2.terminate_instances(InstanceIds=[instance])
    p.ec2.get_waiter("instance_terminated").wait(InstanceIds=[instance], WaiterConfig=FAST)
    return p.see(eni)["Status"]


@question("tags made, changed, found by describe_tags", "k=2")
def _(p):
    eni = p.eni()
    for value in ("1", "2"):
        p.ec2.create_tags(Resources=[eni], Tags=[{"Key": "k", "Value": value}])
    tags = p.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [eni]}])["Tags"]
    return " ".join(f"{tag['Key']}={tag['Value']}" for tag in tags)


@question("a tag deleted by another value, then by its own", "1, 0")
def _(p):
    eni = p.eni()
    p.ec2.create_tags(Resources=[eni], Tags=[{"Key": "k", "Value": "1"}])
    left = []
    for value in ("2", "1"):
        p.ec2.delete_tags(Resources=[eni], Tags=[{"Key": "k", "Value": value}])
        left.append(str(len(p.see(eni)["TagSet"])))
    return ", ".join(left)


@question("51 tags", "TagLimitExceeded")
def _(p):
    p.ec2.create_tags(Resources=[p.eni()], Tags=[{"Key": f"k{at}", "Value": ""} for at in range(51)])
    return "accepted"


@question("a tag on an unknown ENI", "InvalidNetworkInterfaceID.NotFound", "accepted")
def _(p):
    p.ec2.create_tags(Resources=[NO_ENI], Tags=[{"Key": "k", "Value": "v"}])
    return "accepted"


@question("default group of the VPC", "default")
def _(p):
    filters = [{"Name": "vpc-id", "Values": [p.vpc]}, {"Name": "group-name", "Values": ["default"]}]
    return ", ".join(each["GroupName"] for each in p.ec2.describe_security_groups(Filters=filters)["SecurityGroups"])


@question("main route table: local route", "10.0.0.0/16 local active")
def _(p):
    tables = p.ec2.describe_route_tables(Filters=[{"Name": "vpc-id", "Values": [p.vpc]}])["RouteTables"]
    route = tables[0]["Routes"][0]
    return f"{route['DestinationCidrBlock']} {route['GatewayId']} {route['State']}"


@question("an unknown VPC", "InvalidVpcID.NotFound")
def _(p):
    p.ec2.describe_vpcs(VpcIds=["vpc-0123456789abcdef0"])
    return "answered"


def answer(ask, place):
    try:
        return ask(place)
    except ClientError as error:
        return error.response["Error"]["Code"]
    except Exception as error:  # A client that cannot read what it got is an answer, too.
        return f"{type(error).__name__}: {error}"


def main():
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    ours, moto = Place(SEED["url"], SEED), Place(f"http://{host}:{port}")
    rows, disagreements = [], []
    for text, ask, ec2, expected_of_moto in QUESTIONS:
        seen, opinion = answer(ask, ours), answer(ask, moto)
        rows.append({"question": text, "ec2": ec2, "emulator": seen, "moto": opinion})
        if seen != ec2:
            disagreements.append(f"{text}: EC2 {ec2}, the emulator {seen}")
        if opinion != expected_of_moto:
            disagreements.append(f"{text}: moto {opinion}, thought to say {expected_of_moto}")
    server.stop()
    print(json.dumps({"calls": ours.calls, "rows": rows, "disagreements": disagreements}))


main()
