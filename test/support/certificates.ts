/** A certificate authority made on the spot, and a certificate of it for 127.0.0.1: no key is kept in the repository. X.509 by RFC 5280. */
import { createPublicKey, generateKeyPairSync, type KeyObject, sign } from "node:crypto";

export type TestCertificates = { readonly ca: string; readonly key: string; readonly cert: string };

export function makeCertificates(): TestCertificates {
  const authority = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  const server = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  const ca = certificate({
    subject: "Berth test authority",
    issuer: "Berth test authority",
    key: authority,
    signer: authority,
    isCa: true,
  });
  const cert = certificate({
    subject: "127.0.0.1",
    issuer: "Berth test authority",
    key: server,
    signer: authority,
    isCa: false,
  });
  return { ca, cert, key: server.export({ type: "pkcs8", format: "pem" }).toString() };
}

function certificate(of: {
  subject: string;
  issuer: string;
  key: KeyObject;
  signer: KeyObject;
  isCa: boolean;
}): string {
  const ecdsaWithSha256 = sequence(oid("2a8648ce3d040302"));
  const body = sequence(
    der(0xa0, der(0x02, bytes("02"))), // Version 3.
    der(0x02, Buffer.concat([bytes("01"), Buffer.from(of.subject)])), // Serial number: its subject's, so that no two are alike.
    ecdsaWithSha256,
    commonName(of.issuer),
    sequence(utcTime("200101000000Z"), utcTime("491231235959Z")),
    commonName(of.subject),
    createPublicKey(of.key).export({ type: "spki", format: "der" }),
    der(
      0xa3,
      sequence(
        of.isCa
          ? extension("551d13", sequence(der(0x01, bytes("ff"))))
          : extension("551d11", sequence(der(0x87, bytes("7f000001")))),
      ),
    ),
  );
  const signature = sign("sha256", body, of.signer);
  const whole = sequence(body, ecdsaWithSha256, der(0x03, Buffer.concat([bytes("00"), signature])));
  const lines = whole.toString("base64").match(/.{1,64}/g) ?? [];
  return `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`;
}

function der(tag: number, content: Buffer): Buffer {
  const { length } = content;
  const size =
    length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
}

const sequence = (...parts: readonly Buffer[]): Buffer => der(0x30, Buffer.concat(parts));
const bytes = (hex: string): Buffer => Buffer.from(hex, "hex");
const oid = (hex: string): Buffer => der(0x06, bytes(hex));
const utcTime = (text: string): Buffer => der(0x17, Buffer.from(text));
const commonName = (name: string): Buffer =>
  sequence(der(0x31, sequence(oid("550403"), der(0x0c, Buffer.from(name)))));
const extension = (id: string, value: Buffer): Buffer =>
  sequence(oid(id), der(0x01, bytes("ff")), der(0x04, value));
