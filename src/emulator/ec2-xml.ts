/** Writes answers of the EC2 query protocol as XML. A list becomes `<item>` elements, as in all of EC2's answers. */
import type { Failure } from "./failures.ts";

export type XmlValue = string | number | boolean | readonly XmlValue[] | XmlObject;
/** Members in the order in which they are written; what is undefined is left out. */
export type XmlObject = { readonly [name: string]: XmlValue | undefined };

const DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n';

/** `<XResponse>` with its request id: what a call that succeeded answers. */
export function printAnswer(action: string, requestId: string, answer: XmlObject): string {
  const body = printMembers({ requestId, ...answer });
  return `${DECLARATION}<${action}Response xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">${body}</${action}Response>`;
}

/** The error envelope. Here, and only here, the request id is spelt `RequestID`. */
export function printFailure(requestId: string, failure: Failure): string {
  const { code: Code, message: Message } = failure;
  return `${DECLARATION}<Response>${printMembers({ Errors: { Error: { Code, Message } }, RequestID: requestId })}</Response>`;
}

export function escapeXml(text: string): string {
  return text
    .replaceAll("&", "&amp;")
    .replaceAll("<", "&lt;")
    .replaceAll(">", "&gt;")
    .replaceAll('"', "&quot;")
    .replaceAll("\r", "&#xD;");
}

function printMembers(members: XmlObject): string {
  let text = "";
  for (const [name, value] of Object.entries(members)) {
    if (value !== undefined) text += `<${name}>${printValue(value)}</${name}>`;
  }
  return text;
}

function printValue(value: XmlValue): string {
  if (isList(value)) return value.map((item) => `<item>${printValue(item)}</item>`).join("");
  return typeof value === "object" ? printMembers(value) : escapeXml(String(value));
}

function isList(value: XmlValue): value is readonly XmlValue[] {
  return Array.isArray(value);
}
