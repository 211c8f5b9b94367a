/** An OCI image layout as one tar archive: layers, a config and a manifest an architecture, an index over them. OCI image-spec 1.1. */
import { createHash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { tar, type TarEntry } from "./tar.ts";

export type Platform = "amd64" | "arm64";
export type Image = {
  readonly platform: Platform;
  readonly layers: readonly (readonly TarEntry[])[];
  readonly config: {
    readonly entrypoint: readonly string[];
    readonly environment: Readonly<Record<string, string>>;
    readonly labels: Readonly<Record<string, string>>;
  };
};

type Descriptor = { readonly mediaType: string; readonly digest: string; readonly size: number };

const TYPES = {
  index: "application/vnd.oci.image.index.v1+json",
  manifest: "application/vnd.oci.image.manifest.v1+json",
  config: "application/vnd.oci.image.config.v1+json",
  layer: "application/vnd.oci.image.layer.v1.tar+gzip",
} as const;

export type Layout = {
  /** Of the index: what a registry calls the image. */
  readonly digest: string;
  /** Of each platform's manifest. */
  readonly platforms: Readonly<Record<string, string>>;
  readonly archive: Buffer;
};

/** `name` is the reference under which `ctr images import` and registries file it. */
export function ociLayout(images: readonly Image[], name: string): Layout {
  const blobs = new Map<string, Buffer>();
  const put = (mediaType: string, bytes: Buffer): Descriptor => {
    const digest = sha256(bytes);
    blobs.set(digest, bytes);
    return { mediaType, digest, size: bytes.length };
  };
  const json = (mediaType: string, value: unknown): Descriptor =>
    put(mediaType, Buffer.from(JSON.stringify(value)));

  const manifests = images.map((image) => {
    const layers = image.layers.map((entries) => {
      const plain = tar(entries);
      // The bytes of a compressed layer are those of the zlib in the Node that the lock file names.
      return { diffId: sha256(plain), descriptor: put(TYPES.layer, gzipSync(plain, { level: 9 })) };
    });
    const config = json(TYPES.config, {
      architecture: image.platform,
      os: "linux",
      config: {
        Entrypoint: image.config.entrypoint,
        Env: Object.entries(image.config.environment).map(([key, value]) => `${key}=${value}`),
        Labels: image.config.labels,
        WorkingDir: "/",
      },
      rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.diffId) },
    });
    const manifest = json(TYPES.manifest, {
      schemaVersion: 2,
      mediaType: TYPES.manifest,
      config,
      layers: layers.map((layer) => layer.descriptor),
    });
    return { ...manifest, platform: { architecture: image.platform, os: "linux" } };
  });
  const index = json(TYPES.index, { schemaVersion: 2, mediaType: TYPES.index, manifests });
  const top = {
    schemaVersion: 2,
    mediaType: TYPES.index,
    manifests: [
      {
        ...index,
        annotations: {
          "org.opencontainers.image.ref.name": name.split(":").at(-1) ?? name,
          "io.containerd.image.name": name,
        },
      },
    ],
  };
  const text = (path: string, value: unknown): TarEntry => ({
    kind: "file",
    path,
    bytes: Buffer.from(JSON.stringify(value)),
    mode: 0o644,
  });
  const archive = tar([
    text("oci-layout", { imageLayoutVersion: "1.0.0" }),
    text("index.json", top),
    ...[...blobs].map(
      ([digest, bytes]): TarEntry => ({
        kind: "file",
        path: `blobs/${digest.replace(":", "/")}`,
        bytes,
        mode: 0o644,
      }),
    ),
  ]);
  const platforms = Object.fromEntries(manifests.map((each) => [each.platform.architecture, each.digest]));
  return { digest: index.digest, platforms, archive };
}

function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
