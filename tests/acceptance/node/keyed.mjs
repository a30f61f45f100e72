// A visit with a key: what a client sees, may call, is refused, and hears; prints what happened as one line of JSON.
//
//   node keyed.mjs SDK URL KEY     SDK: sdk-http | sdk-sse (1.x), client-legacy | client-auto (2.x)
//
// It judges nothing: the Python test that starts it knows what must be true. A step that throws reports its error.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages live where the conformance suite lives: one npm tree for all tests.
const packages = createRequire(new URL("../../conformance/package.json", import.meta.url));
const load = (specifier) => import(pathToFileURL(packages.resolve(specifier)).href);

const [sdk, url, key] = process.argv.slice(2);
const options = { requestInit: { headers: { Authorization: `Bearer ${key}` } } };
const identity = { name: "visit-with-a-key", version: "1.0.0" };

async function version1(transport) {
  const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
  const client = new Client(identity, { capabilities: {} });
  await client.connect(await transport());
  return { client, call: (params, given) => client.callTool(params, undefined, given) };
}

async function version2(mode) {
  const { Client, StreamableHTTPClientTransport } = await load("@modelcontextprotocol/client");
  const client = new Client(identity, { capabilities: {}, versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(new URL(url), options));
  return { client, call: (params, given) => client.callTool(params, given) };
}

const OPENERS = {
  "sdk-http": () =>
    version1(async () => {
      const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");
      return new StreamableHTTPClientTransport(new URL(url), options);
    }),
  "sdk-sse": () =>
    version1(async () => {
      const { SSEClientTransport } = await load("@modelcontextprotocol/sdk/client/sse.js");
      return new SSEClientTransport(new URL(url), options);
    }),
  "client-legacy": () => version2("legacy"),
  "client-auto": () => version2("auto"),
};

const report = {};

async function step(name, run) {
  try {
    report[name] = await run();
  } catch (error) {
    report[name] = { error: `${error.name}: ${error.message}`, code: error.code ?? error.data?.status };
  }
}

const text = (result) => result.content?.map((block) => block.text ?? block.type).join("\n");
let connection;
await step("connected", async () => Boolean((connection = await OPENERS[sdk]())));
if (connection) {
  const { client, call } = connection;
  await step("tools", async () => (await client.listTools()).tools.map((tool) => tool.name).sort());
  await step("echo", async () => text(await call({ name: "echo", arguments: { message: "grüße" } })));
  await step("refused", async () => text(await call({ name: "test_simple_text", arguments: {} })));
  await step("progress", async () => {
    const seen = [];
    const onprogress = ({ progress }) => seen.push(progress);
    await call({ name: "slow_steps", arguments: { label: `keyed-${sdk}`, steps: 3, pause: 0.1 } }, { onprogress });
    return seen;
  });
  await step("closed", async () => (await client.close(), true));
}
console.log(JSON.stringify(report));
process.exit(0);
