"""Walks recorded answers of the emulator beside botocore's model of each operation: names, nesting, types, enums.

In: a file with one JSON object a line, {"action", "status", "body"}. Out: one JSON object with counts and what was not right.
"""

import json
import re
import sys
import xml.etree.ElementTree as ElementTree

import botocore.session

NAMESPACE = "{http://ec2.amazonaws.com/doc/2016-11-15/}"
SCALARS = {
    "integer": r"-?\d+",
    "long": r"-?\d+",
    "double": r"-?\d+(\.\d+)?",
    "float": r"-?\d+(\.\d+)?",
    "boolean": r"true|false",
    "timestamp": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
}


# AWS shows this value in its own example of CreateNetworkInterface, and its model has no such value.
BEYOND_THE_MODEL = {("NetworkInterfaceStatus", "pending")}


class Walk:
    def __init__(self):
        self.elements = 0
        self.unknown = set()
        self.ill_typed = set()
        self.actions = set()

    def element(self, element, shape, path):
        self.elements += 1
        kind = shape.type_name
        if kind == "structure":
            self.structure(element, shape, path)
        elif kind == "list":
            self.listing(element, shape, path)
        elif len(element) > 0:
            self.ill_typed.add(f"{path}: elements below a {kind}")
        else:
            self.scalar(element.text or "", shape, path)

    def structure(self, element, shape, path):
        # EC2 names members on the wire by their locationName; botocore's own parser reads them so.
        members = {
            each.serialization.get("name", name): each for name, each in shape.members.items()
        }
        if (element.text or "").strip():
            self.ill_typed.add(f"{path}: text in a structure")
        seen = set()
        for child in element:
            name = child.tag.removeprefix(NAMESPACE)
            if name not in members:
                self.elements += 1
                self.unknown.add(f"{path}.{name}")
                continue
            if name in seen and not members[name].serialization.get("flattened"):
                self.ill_typed.add(f"{path}.{name}: twice")
            seen.add(name)
            self.element(child, members[name], f"{path}.{name}")

    def listing(self, element, shape, path):
        if (element.text or "").strip():
            self.ill_typed.add(f"{path}: text in a list")
        wanted = shape.member.serialization.get("name", "member")
        for child in element:
            name = child.tag.removeprefix(NAMESPACE)
            if name != wanted:
                self.unknown.add(f"{path}.{name}")
            else:
                self.element(child, shape.member, f"{path}[]")

    def scalar(self, text, shape, path):
        pattern = SCALARS.get(shape.type_name)
        if pattern is not None and not re.fullmatch(pattern, text):
            self.ill_typed.add(f"{path}: {text!r} is no {shape.type_name}")
        values = getattr(shape, "enum", [])
        if values and text not in values and (shape.name, text) not in BEYOND_THE_MODEL:
            self.ill_typed.add(f"{path}: {text!r} is not among its values")

    def answer(self, model, record):
        action, root = record["action"], ElementTree.fromstring(record["body"])
        if record["status"] != 200:
            self.refusal(action, root)
            return
        self.actions.add(action)
        self.elements += 1
        if root.tag != f"{NAMESPACE}{action}Response":
            self.unknown.add(f"{action}: {root.tag}")
        request_ids = [child for child in root if child.tag == f"{NAMESPACE}requestId"]
        if len(request_ids) != 1:
            self.ill_typed.add(f"{action}: {len(request_ids)} request ids")
        for child in request_ids:
            root.remove(child)
        shape = model.operation_model(action).output_shape
        if shape is not None:
            self.structure(root, shape, action)
        elif [child.tag.removeprefix(NAMESPACE) for child in root] not in ([], ["return"]):
            self.unknown.add(f"{action}: a body that its model has not")

    def refusal(self, action, root):
        self.elements += 5
        outline = [(each.tag, (each.text or "").strip() != "") for each in root.iter()]
        wanted = ["Response", "Errors", "Error", "Code", "Message", "RequestID"]
        if [tag for tag, _ in outline] != wanted or not outline[3][1] or not outline[5][1]:
            self.unknown.add(f"{action}: refused with {outline}")


def main():
    model = botocore.session.get_session().get_service_model("ec2")
    walk = Walk()
    with open(sys.argv[1], encoding="utf-8") as records:
        for line in records:
            walk.answer(model, json.loads(line))
    report = {
        "elements": walk.elements,
        "unknown": sorted(walk.unknown),
        "illTyped": sorted(walk.ill_typed),
        "actions": sorted(walk.actions),
    }
    print(json.dumps(report))


main()
