/** The SDK's trade of a web identity token at STS. By name and in a file of its own: a bundler gives `import()` of the package itself no names. */
export { fromTokenFile } from "@aws-sdk/credential-provider-web-identity";
