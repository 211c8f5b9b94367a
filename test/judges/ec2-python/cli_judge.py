"""The AWS CLI on the emulator: its own driver, parser, pager and waiters, in one process since a start of it costs a second.

In: JUDGE_SEED. Out: one JSON object, {"calls", "failed"}.
"""

import contextlib
import io
import json
import os

SEED = json.loads(os.environ["JUDGE_SEED"])
os.environ.update(
    AWS_ENDPOINT_URL_EC2=SEED["url"],
    AWS_ACCESS_KEY_ID="AKIACLI",
    AWS_SECRET_ACCESS_KEY="unchecked",
    AWS_DEFAULT_REGION="eu-west-1",
    AWS_CONFIG_FILE="/dev/null",
    AWS_SHARED_CREDENTIALS_FILE="/dev/null",
    AWS_EC2_METADATA_DISABLED="true",
    AWS_MAX_ATTEMPTS="1",
)

from awscli.clidriver import create_clidriver  # noqa: E402

calls = 0
failed = []


def aws(*words, code=0):
    """Runs `aws ec2 WORDS` and gives what it printed: JSON where it is some. Each has a driver of its own: one that is used again grows slow."""
    global calls
    calls += 1
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        try:
            ended = create_clidriver().main(["ec2", *words])
        except SystemExit as stop:
            ended = stop.code
    if ended != code:
        failed.append(f"aws ec2 {' '.join(words)}: ended with {ended}: {error.getvalue().strip()[:300]}")
    text = out.getvalue() if code == 0 else error.getvalue()
    try:
        return json.loads(text)
    except ValueError:
        return text.strip()


def check(what, holds, seen):
    if not holds:
        failed.append(f"{what}: {json.dumps(seen)[:300]}")


def main():
    vpcs = aws("describe-vpcs", "--vpc-ids", SEED["vpcId"], "--query", "Vpcs[].CidrBlockAssociationSet[].CidrBlock")
    check("the ranges of the VPC", vpcs == ["10.0.0.0/16", "10.1.0.0/16"], vpcs)
    subnet = aws("describe-subnets", "--filters", f"Name=subnet-id,Values={SEED['subnetId']}", "--query", "Subnets[0]")
    check("the subnet", isinstance(subnet, dict) and subnet["CidrBlock"] == "10.0.0.0/20", subnet)
    zones = aws("describe-availability-zones", "--query", "AvailabilityZones[].ZoneName", "--output", "text")
    check("the zones", zones == "eu-west-1a", zones)
    groups = aws("describe-security-groups", "--group-ids", SEED["groupId"], "--query", "SecurityGroups[].GroupName")
    check("the group", groups == ["default"], groups)
    routes = aws("describe-route-tables", "--query", "RouteTables[].Routes[].GatewayId")
    check("the routes", "local" in routes, routes)
    limits = aws("describe-instance-types", "--instance-types", "m5.large", "t3.small", "--query", "InstanceTypes[].NetworkInfo.MaximumNetworkInterfaces")
    check("the limits", limits == [3, 3], limits)

    spec = "ResourceType=network-interface,Tags=[{Key=judge,Value=cli},{Key=quoted,Value='a <b> & \"c\"'}]"
    made = aws("create-network-interface", "--subnet-id", SEED["subnetId"], "--description", "cli 0", "--groups", SEED["groupId"], "--secondary-private-ip-address-count", "2", "--tag-specifications", spec)
    eni = made["NetworkInterface"]["NetworkInterfaceId"]
    tags = {tag["Key"]: tag["Value"] for tag in made["NetworkInterface"]["TagSet"]}
    check("tags of the new ENI", tags == {"judge": "cli", "quoted": 'a <b> & "c"'}, tags)
    aws("wait", "network-interface-available", "--network-interface-ids", eni)
    attachment = aws("attach-network-interface", "--network-interface-id", eni, "--instance-id", SEED["instanceId"], "--device-index", "1", "--query", "AttachmentId", "--output", "text")
    assigned = aws("assign-private-ip-addresses", "--network-interface-id", eni, "--secondary-private-ip-address-count", "2", "--query", "AssignedPrivateIpAddresses[].PrivateIpAddress")
    check("the new addresses alone", len(assigned) == 2, assigned)
    prefix = aws("assign-private-ip-addresses", "--network-interface-id", eni, "--ipv4-prefix-count", "1", "--query", "AssignedIpv4Prefixes[0].Ipv4Prefix", "--output", "text")
    check("a prefix", str(prefix).endswith("/28"), prefix)
    aws("unassign-private-ip-addresses", "--network-interface-id", eni, "--ipv4-prefixes", str(prefix))
    aws("unassign-private-ip-addresses", "--network-interface-id", eni, "--private-ip-addresses", *assigned)
    aws("modify-network-interface-attribute", "--network-interface-id", eni, "--attachment", f"AttachmentId={attachment},DeleteOnTermination=true")
    aws("modify-network-interface-attribute", "--network-interface-id", eni, "--no-source-dest-check")
    aws("modify-network-interface-attribute", "--network-interface-id", eni, "--description", "Value=cli changed")
    seen = aws("describe-network-interfaces", "--filters", f"Name=attachment.instance-id,Values={SEED['instanceId']}", "Name=attachment.device-index,Values=1", "--query", "NetworkInterfaces[0].[NetworkInterfaceId,Attachment.DeleteOnTermination,SourceDestCheck,Description,length(PrivateIpAddresses)]")
    check("the ENI with all that was done", seen == [eni, True, False, "cli changed", 3], seen)
    attribute = aws("describe-network-interface-attribute", "--network-interface-id", eni, "--attribute", "sourceDestCheck", "--query", "SourceDestCheck.Value")
    check("the attribute", attribute is False, attribute)
    aws("create-tags", "--resources", eni, "--tags", "Key=later,Value=x")
    aws("delete-tags", "--resources", eni, "--tags", "Key=later,Value=y")
    count = aws("describe-tags", "--filters", f"Name=resource-id,Values={eni}", "--query", "length(Tags)")
    check("a tag of another value stays", count == 3, count)
    aws("detach-network-interface", "--attachment-id", attachment, "--force")
    aws("wait", "network-interface-available", "--network-interface-ids", eni)
    aws("delete-network-interface", "--network-interface-id", eni)
    unknown = aws("delete-network-interface", "--network-interface-id", eni, code=255)
    check("the refusal", f"(InvalidNetworkInterfaceID.NotFound) when calling the DeleteNetworkInterface operation: The networkInterface ID '{eni}' does not exist" in unknown, unknown)
    dry = aws("describe-vpcs", "--dry-run", code=255)
    check("the dry run", "(DryRunOperation)" in dry, dry)

    many = [aws("create-network-interface", "--subnet-id", SEED["subnetId"], "--description", "cli page", "--query", "NetworkInterface.NetworkInterfaceId", "--output", "text") for _ in range(7)]
    of_page = ["--filters", "Name=description,Values=cli page"]
    ids = aws("describe-network-interfaces", *of_page, "--page-size", "5", "--query", "NetworkInterfaces[].NetworkInterfaceId")
    check("all pages", sorted(ids) == sorted(many), ids)
    part = aws("describe-network-interfaces", *of_page, "--page-size", "5", "--max-items", "6")
    check("six items and a token", len(part["NetworkInterfaces"]) == 6 and "NextToken" in part, list(part))
    rest = aws("describe-network-interfaces", *of_page, "--page-size", "5", "--starting-token", part["NextToken"], "--query", "length(NetworkInterfaces)")
    check("the rest", rest == 1, rest)
    for each in many:
        aws("delete-network-interface", "--network-interface-id", each)

    launched = aws("run-instances", "--image-id", "ami-0123456789abcdef0", "--instance-type", "t3.small", "--subnet-id", SEED["subnetId"], "--secondary-private-ip-address-count", "1", "--query", "Instances[0].InstanceId", "--output", "text")
    aws("wait", "instance-running", "--instance-ids", launched)
    aws("wait", "instance-exists", "--instance-ids", launched)
    state = aws("describe-instances", "--instance-ids", launched, "--query", "Reservations[].Instances[].[State.Name,length(NetworkInterfaces[0].PrivateIpAddresses)]")
    check("the instance", state == [["running", 2]], state)
    aws("terminate-instances", "--instance-ids", launched)
    aws("wait", "instance-terminated", "--instance-ids", launched)

    reservation = aws("create-subnet-cidr-reservation", "--subnet-id", SEED["spareSubnetId"], "--cidr", "10.0.32.32/28", "--reservation-type", "prefix", "--query", "SubnetCidrReservation.SubnetCidrReservationId", "--output", "text")
    listed = aws("get-subnet-cidr-reservations", "--subnet-id", SEED["spareSubnetId"], "--query", "SubnetIpv4CidrReservations[].Cidr")
    check("the reservation", listed == ["10.0.32.32/28"], listed)
    aws("delete-subnet-cidr-reservation", "--subnet-cidr-reservation-id", reservation)
    aws("delete-subnet", "--subnet-id", SEED["lastSubnetId"])
    aws("delete-security-group", "--group-id", SEED["lastGroupId"])
    print(json.dumps({"calls": calls, "failed": failed}))


main()
