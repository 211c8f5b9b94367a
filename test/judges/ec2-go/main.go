// The AWS SDK for Go v2 reads the emulator: a stricter reader than JavaScript's or Python's, since a number that is none, a truth that is none
// and a time that is none are errors to it. Asks every operation that has an answer, pages and waits with the SDK's own helpers, and
// prints one JSON object: how many calls were made, and what was refused or missing.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/aws/smithy-go"
)

type seed struct {
	URL        string `json:"url"`
	VpcID      string `json:"vpcId"`
	SubnetID   string `json:"subnetId"`
	SpareID    string `json:"spareSubnetId"`
	GroupID    string `json:"groupId"`
	InstanceID string `json:"instanceId"`
}

type judge struct {
	ctx     context.Context
	client  *ec2.Client
	calls   int
	refused []string
}

func main() {
	var s seed
	if err := json.Unmarshal([]byte(os.Getenv("JUDGE_SEED")), &s); err != nil {
		fmt.Fprintln(os.Stderr, "JUDGE_SEED:", err)
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	client := ec2.New(ec2.Options{
		Region:       "eu-west-1",
		BaseEndpoint: aws.String(s.URL),
		Credentials:  credentials.NewStaticCredentialsProvider("AKIAGO", "unchecked", ""),
		Retryer:      aws.NopRetryer{},
	})
	j := &judge{ctx: ctx, client: client, refused: []string{}}
	j.surroundings(s)
	eni := j.life(s)
	j.pages(s)
	j.refusals(s, eni)
	out, _ := json.Marshal(map[string]any{"calls": j.calls, "refused": j.refused})
	fmt.Println(string(out))
}

// ask makes a call; what it reads is looked at by `whole`, which names what is missing.
func ask[I, O any](j *judge, name string, call func(context.Context, *I, ...func(*ec2.Options)) (*O, error), in *I, whole func(*O) string) *O {
	j.calls++
	out, err := call(j.ctx, in)
	if err != nil {
		j.refused = append(j.refused, fmt.Sprintf("%s: %v", name, err))
		return new(O)
	}
	if missing := whole(out); missing != "" {
		j.refused = append(j.refused, fmt.Sprintf("%s: %s", name, missing))
	}
	return out
}

func yes[O any](*O) string { return "" }

func wants(holds bool, what string) string {
	if holds {
		return ""
	}
	return what
}

func (j *judge) surroundings(s seed) {
	ask(j, "DescribeVpcs", j.client.DescribeVpcs, &ec2.DescribeVpcsInput{VpcIds: []string{s.VpcID}}, func(o *ec2.DescribeVpcsOutput) string {
		return wants(len(o.Vpcs) == 1 && o.Vpcs[0].CidrBlock != nil && len(o.Vpcs[0].CidrBlockAssociationSet) > 0 && o.Vpcs[0].IsDefault != nil, "a VPC with its ranges")
	})
	ask(j, "DescribeSubnets", j.client.DescribeSubnets, &ec2.DescribeSubnetsInput{SubnetIds: []string{s.SubnetID}}, func(o *ec2.DescribeSubnetsOutput) string {
		return wants(len(o.Subnets) == 1 && aws.ToInt32(o.Subnets[0].AvailableIpAddressCount) > 0 && o.Subnets[0].AvailabilityZone != nil, "a subnet with a count")
	})
	ask(j, "DescribeSecurityGroups", j.client.DescribeSecurityGroups, &ec2.DescribeSecurityGroupsInput{GroupIds: []string{s.GroupID}}, func(o *ec2.DescribeSecurityGroupsOutput) string {
		return wants(len(o.SecurityGroups) == 1 && o.SecurityGroups[0].GroupName != nil, "a group with a name")
	})
	ask(j, "DescribeRouteTables", j.client.DescribeRouteTables, &ec2.DescribeRouteTablesInput{}, func(o *ec2.DescribeRouteTablesOutput) string {
		return wants(len(o.RouteTables) > 0 && len(o.RouteTables[0].Routes) > 0 && o.RouteTables[0].Routes[0].State == types.RouteStateActive, "an active route")
	})
	ask(j, "DescribeAvailabilityZones", j.client.DescribeAvailabilityZones, &ec2.DescribeAvailabilityZonesInput{}, func(o *ec2.DescribeAvailabilityZonesOutput) string {
		return wants(len(o.AvailabilityZones) > 0 && o.AvailabilityZones[0].State == types.AvailabilityZoneStateAvailable, "an available zone")
	})
	ask(j, "DescribeInstances", j.client.DescribeInstances, &ec2.DescribeInstancesInput{InstanceIds: []string{s.InstanceID}}, func(o *ec2.DescribeInstancesOutput) string {
		if len(o.Reservations) != 1 || len(o.Reservations[0].Instances) != 1 {
			return "one instance"
		}
		i := o.Reservations[0].Instances[0]
		return wants(i.LaunchTime != nil && i.State.Name == types.InstanceStateNameRunning && len(i.NetworkInterfaces) > 0 && i.NetworkInterfaces[0].Attachment.AttachTime != nil, "a running instance with its ENI and their times")
	})
	ask(j, "DescribeInstanceTypes", j.client.DescribeInstanceTypes, &ec2.DescribeInstanceTypesInput{InstanceTypes: []types.InstanceType{types.InstanceTypeP4d24xlarge}}, func(o *ec2.DescribeInstanceTypesOutput) string {
		n := o.InstanceTypes[0].NetworkInfo
		return wants(aws.ToInt32(n.MaximumNetworkInterfaces) == 60 && aws.ToInt32(n.Ipv4AddressesPerInterface) == 50 && len(n.NetworkCards) == 4, "the limits of p4d.24xlarge")
	})
	made := ask(j, "CreateSubnetCidrReservation", j.client.CreateSubnetCidrReservation, &ec2.CreateSubnetCidrReservationInput{SubnetId: aws.String(s.SpareID), Cidr: aws.String("10.0.32.64/28"), ReservationType: types.SubnetCidrReservationTypePrefix}, func(o *ec2.CreateSubnetCidrReservationOutput) string {
		return wants(o.SubnetCidrReservation != nil && o.SubnetCidrReservation.ReservationType == types.SubnetCidrReservationTypePrefix, "the reservation")
	})
	ask(j, "GetSubnetCidrReservations", j.client.GetSubnetCidrReservations, &ec2.GetSubnetCidrReservationsInput{SubnetId: aws.String(s.SpareID)}, func(o *ec2.GetSubnetCidrReservationsOutput) string {
		return wants(len(o.SubnetIpv4CidrReservations) == 1, "the reservation")
	})
	if made.SubnetCidrReservation != nil {
		ask(j, "DeleteSubnetCidrReservation", j.client.DeleteSubnetCidrReservation, &ec2.DeleteSubnetCidrReservationInput{SubnetCidrReservationId: made.SubnetCidrReservation.SubnetCidrReservationId}, yes[ec2.DeleteSubnetCidrReservationOutput])
	}
}

// life is an ENI's: made, attached, given addresses and prefixes, tagged, changed, taken away; and an instance's.
// The SDK has no name for the status "pending", which AWS shows in its own examples of CreateNetworkInterface.
func (j *judge) life(s seed) string {
	tags := []types.TagSpecification{{ResourceType: types.ResourceTypeNetworkInterface, Tags: []types.Tag{{Key: aws.String("judge"), Value: aws.String("go & <others>")}}}}
	made := ask(j, "CreateNetworkInterface", j.client.CreateNetworkInterface, &ec2.CreateNetworkInterfaceInput{SubnetId: aws.String(s.SubnetID), Description: aws.String("made by Go"), SecondaryPrivateIpAddressCount: aws.Int32(2), Groups: []string{s.GroupID}, TagSpecifications: tags, ClientToken: aws.String("go-token")}, func(o *ec2.CreateNetworkInterfaceOutput) string {
		n := o.NetworkInterface
		return wants(n != nil && len(n.PrivateIpAddresses) == 3 && aws.ToBool(n.PrivateIpAddresses[0].Primary) && n.Status == "pending" && len(n.TagSet) == 1 && *n.TagSet[0].Value == "go & <others>", "the ENI with its addresses and tags")
	})
	if made.NetworkInterface == nil {
		return ""
	}
	eni := *made.NetworkInterface.NetworkInterfaceId
	j.calls++
	if err := ec2.NewNetworkInterfaceAvailableWaiter(j.client, func(o *ec2.NetworkInterfaceAvailableWaiterOptions) {
		o.MinDelay = 10 * time.Millisecond
		o.MaxDelay = 50 * time.Millisecond
	}).Wait(j.ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{eni}}, 10*time.Second); err != nil {
		j.refused = append(j.refused, "waiter NetworkInterfaceAvailable: "+err.Error())
	}
	attached := ask(j, "AttachNetworkInterface", j.client.AttachNetworkInterface, &ec2.AttachNetworkInterfaceInput{NetworkInterfaceId: aws.String(eni), InstanceId: aws.String(s.InstanceID), DeviceIndex: aws.Int32(1), NetworkCardIndex: aws.Int32(0)}, func(o *ec2.AttachNetworkInterfaceOutput) string {
		return wants(o.AttachmentId != nil && o.NetworkCardIndex != nil, "the attachment")
	})
	ask(j, "AssignPrivateIpAddresses", j.client.AssignPrivateIpAddresses, &ec2.AssignPrivateIpAddressesInput{NetworkInterfaceId: aws.String(eni), SecondaryPrivateIpAddressCount: aws.Int32(2)}, func(o *ec2.AssignPrivateIpAddressesOutput) string {
		return wants(len(o.AssignedPrivateIpAddresses) == 2 && o.NetworkInterfaceId != nil, "the two new addresses alone")
	})
	prefixes := ask(j, "AssignPrivateIpAddresses", j.client.AssignPrivateIpAddresses, &ec2.AssignPrivateIpAddressesInput{NetworkInterfaceId: aws.String(eni), Ipv4PrefixCount: aws.Int32(1)}, func(o *ec2.AssignPrivateIpAddressesOutput) string {
		return wants(len(o.AssignedIpv4Prefixes) == 1 && o.AssignedIpv4Prefixes[0].Ipv4Prefix != nil, "the prefix")
	})
	ask(j, "ModifyNetworkInterfaceAttribute", j.client.ModifyNetworkInterfaceAttribute, &ec2.ModifyNetworkInterfaceAttributeInput{NetworkInterfaceId: aws.String(eni), Attachment: &types.NetworkInterfaceAttachmentChanges{AttachmentId: attached.AttachmentId, DeleteOnTermination: aws.Bool(true)}}, yes[ec2.ModifyNetworkInterfaceAttributeOutput])
	for _, attribute := range []types.NetworkInterfaceAttribute{types.NetworkInterfaceAttributeDescription, types.NetworkInterfaceAttributeGroupSet, types.NetworkInterfaceAttributeSourceDestCheck, types.NetworkInterfaceAttributeAttachment} {
		ask(j, "DescribeNetworkInterfaceAttribute", j.client.DescribeNetworkInterfaceAttribute, &ec2.DescribeNetworkInterfaceAttributeInput{NetworkInterfaceId: aws.String(eni), Attribute: attribute}, func(o *ec2.DescribeNetworkInterfaceAttributeOutput) string {
			return wants(o.Description != nil || len(o.Groups) > 0 || o.SourceDestCheck != nil || o.Attachment != nil, "the attribute "+string(attribute))
		})
	}
	seen := ask(j, "DescribeNetworkInterfaces", j.client.DescribeNetworkInterfaces, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{eni}}, func(o *ec2.DescribeNetworkInterfacesOutput) string {
		if len(o.NetworkInterfaces) != 1 {
			return "the ENI"
		}
		n := o.NetworkInterfaces[0]
		return wants(n.Attachment != nil && n.Attachment.AttachTime != nil && aws.ToBool(n.Attachment.DeleteOnTermination) && len(n.Ipv4Prefixes) == 1 && len(n.PrivateIpAddresses) == 5 && n.InterfaceType == types.NetworkInterfaceTypeInterface && n.SourceDestCheck != nil, "the ENI with all that was done to it")
	})
	if len(seen.NetworkInterfaces) == 1 && len(prefixes.AssignedIpv4Prefixes) == 1 {
		last := seen.NetworkInterfaces[0].PrivateIpAddresses[4].PrivateIpAddress
		ask(j, "UnassignPrivateIpAddresses", j.client.UnassignPrivateIpAddresses, &ec2.UnassignPrivateIpAddressesInput{NetworkInterfaceId: aws.String(eni), PrivateIpAddresses: []string{*last}}, yes[ec2.UnassignPrivateIpAddressesOutput])
		ask(j, "UnassignPrivateIpAddresses", j.client.UnassignPrivateIpAddresses, &ec2.UnassignPrivateIpAddressesInput{NetworkInterfaceId: aws.String(eni), Ipv4Prefixes: []string{*prefixes.AssignedIpv4Prefixes[0].Ipv4Prefix}}, yes[ec2.UnassignPrivateIpAddressesOutput])
	}
	tag := []types.Tag{{Key: aws.String("later"), Value: aws.String("é\n")}}
	ask(j, "CreateTags", j.client.CreateTags, &ec2.CreateTagsInput{Resources: []string{eni}, Tags: tag}, yes[ec2.CreateTagsOutput])
	ask(j, "DescribeTags", j.client.DescribeTags, &ec2.DescribeTagsInput{Filters: []types.Filter{{Name: aws.String("resource-id"), Values: []string{eni}}}}, func(o *ec2.DescribeTagsOutput) string {
		found := false
		for _, each := range o.Tags {
			found = found || (*each.Key == "later" && *each.Value == "é\n" && each.ResourceType == types.ResourceTypeNetworkInterface)
		}
		return wants(len(o.Tags) == 2 && found, "both tags, letter by letter")
	})
	ask(j, "DeleteTags", j.client.DeleteTags, &ec2.DeleteTagsInput{Resources: []string{eni}, Tags: tag}, yes[ec2.DeleteTagsOutput])
	ask(j, "DetachNetworkInterface", j.client.DetachNetworkInterface, &ec2.DetachNetworkInterfaceInput{AttachmentId: attached.AttachmentId, Force: aws.Bool(true)}, yes[ec2.DetachNetworkInterfaceOutput])
	ec2.NewNetworkInterfaceAvailableWaiter(j.client, func(o *ec2.NetworkInterfaceAvailableWaiterOptions) {
		o.MinDelay = 10 * time.Millisecond
		o.MaxDelay = 50 * time.Millisecond
	}).Wait(j.ctx, &ec2.DescribeNetworkInterfacesInput{NetworkInterfaceIds: []string{eni}}, 10*time.Second)
	ask(j, "DeleteNetworkInterface", j.client.DeleteNetworkInterface, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: aws.String(eni)}, yes[ec2.DeleteNetworkInterfaceOutput])

	run := ask(j, "RunInstances", j.client.RunInstances, &ec2.RunInstancesInput{ImageId: aws.String("ami-0123456789abcdef0"), InstanceType: types.InstanceTypeT3Small, MinCount: aws.Int32(1), MaxCount: aws.Int32(1), NetworkInterfaces: []types.InstanceNetworkInterfaceSpecification{{DeviceIndex: aws.Int32(0), SubnetId: aws.String(s.SubnetID), Groups: []string{s.GroupID}, DeleteOnTermination: aws.Bool(true), SecondaryPrivateIpAddressCount: aws.Int32(2)}}}, func(o *ec2.RunInstancesOutput) string {
		return wants(len(o.Instances) == 1 && o.ReservationId != nil && o.Instances[0].State.Name == types.InstanceStateNamePending, "a pending instance in a reservation")
	})
	if len(run.Instances) == 1 {
		id := []string{*run.Instances[0].InstanceId}
		j.calls++
		if err := ec2.NewInstanceRunningWaiter(j.client, func(o *ec2.InstanceRunningWaiterOptions) {
			o.MinDelay = 10 * time.Millisecond
			o.MaxDelay = 50 * time.Millisecond
		}).Wait(j.ctx, &ec2.DescribeInstancesInput{InstanceIds: id}, 10*time.Second); err != nil {
			j.refused = append(j.refused, "waiter InstanceRunning: "+err.Error())
		}
		ask(j, "TerminateInstances", j.client.TerminateInstances, &ec2.TerminateInstancesInput{InstanceIds: id}, func(o *ec2.TerminateInstancesOutput) string {
			return wants(len(o.TerminatingInstances) == 1 && o.TerminatingInstances[0].PreviousState.Name == types.InstanceStateNameRunning, "the state before")
		})
		j.calls++
		if err := ec2.NewInstanceTerminatedWaiter(j.client, func(o *ec2.InstanceTerminatedWaiterOptions) {
			o.MinDelay = 10 * time.Millisecond
			o.MaxDelay = 50 * time.Millisecond
		}).Wait(j.ctx, &ec2.DescribeInstancesInput{InstanceIds: id}, 10*time.Second); err != nil {
			j.refused = append(j.refused, "waiter InstanceTerminated: "+err.Error())
		}
	}
	return eni
}

// pages walks all ENIs five at a time, and all instance types, and counts each once.
func (j *judge) pages(s seed) {
	var made []string
	for range 12 {
		out := ask(j, "CreateNetworkInterface", j.client.CreateNetworkInterface, &ec2.CreateNetworkInterfaceInput{SubnetId: aws.String(s.SubnetID), Description: aws.String("go pages")}, yes[ec2.CreateNetworkInterfaceOutput])
		if out.NetworkInterface != nil {
			made = append(made, *out.NetworkInterface.NetworkInterfaceId)
		}
	}
	counted := map[string]int{}
	pages := ec2.NewDescribeNetworkInterfacesPaginator(j.client, &ec2.DescribeNetworkInterfacesInput{MaxResults: aws.Int32(5), Filters: []types.Filter{{Name: aws.String("description"), Values: []string{"go p*"}}}})
	for pages.HasMorePages() {
		j.calls++
		page, err := pages.NextPage(j.ctx)
		if err != nil {
			j.refused = append(j.refused, "pages: "+err.Error())
			break
		}
		for _, each := range page.NetworkInterfaces {
			counted[*each.NetworkInterfaceId]++
		}
	}
	for _, id := range made {
		if counted[id] != 1 {
			j.refused = append(j.refused, fmt.Sprintf("pages: %s came %d times", id, counted[id]))
		}
		ask(j, "DeleteNetworkInterface", j.client.DeleteNetworkInterface, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: aws.String(id)}, yes[ec2.DeleteNetworkInterfaceOutput])
	}
	kinds := ec2.NewDescribeInstanceTypesPaginator(j.client, &ec2.DescribeInstanceTypesInput{MaxResults: aws.Int32(100)})
	total := 0
	for kinds.HasMorePages() {
		j.calls++
		page, err := kinds.NextPage(j.ctx)
		if err != nil {
			j.refused = append(j.refused, "instance types: "+err.Error())
			break
		}
		total += len(page.InstanceTypes)
	}
	if total < 1_000 {
		j.refused = append(j.refused, fmt.Sprintf("instance types: only %d", total))
	}
}

// refusals must come as errors with EC2's own code and a request id.
func (j *judge) refusals(s seed, eni string) {
	j.calls++
	_, err := j.client.DeleteNetworkInterface(j.ctx, &ec2.DeleteNetworkInterfaceInput{NetworkInterfaceId: aws.String(eni)})
	var refusal smithy.APIError
	if !errors.As(err, &refusal) || refusal.ErrorCode() != "InvalidNetworkInterfaceID.NotFound" {
		j.refused = append(j.refused, fmt.Sprintf("refusal of an unknown ENI reads as %v", err))
	}
	j.calls++
	_, err = j.client.DescribeVpcs(j.ctx, &ec2.DescribeVpcsInput{DryRun: aws.Bool(true)})
	if !errors.As(err, &refusal) || refusal.ErrorCode() != "DryRunOperation" {
		j.refused = append(j.refused, fmt.Sprintf("a dry run reads as %v", err))
	}
}
