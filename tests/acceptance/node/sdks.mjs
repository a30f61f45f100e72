// The official JavaScript clients behind one small interface, so that `tour.mjs` can take either for the same tour.
//
// open(name, url) -> { client, request, onRequest, onNotification }, connected. `name` is one of
//   sdk-http, sdk-sse       @modelcontextprotocol/sdk (1.x), streamable HTTP and the transport of 2024-11-05
//   client-legacy, client-auto   @modelcontextprotocol/client (2.x), its default and its negotiating mode

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages live where the conformance suite lives: one npm tree for all tests.
const packages = createRequire(new URL("../../conformance/package.json", import.meta.url));
const load = (specifier) => import(pathToFileURL(packages.resolve(specifier)).href);

const IDENTITY = { name: "acceptance-tour", version: "1.0.0" };
const CAPABILITIES = { sampling: {}, elicitation: {} };

async function openVersion1(url, transport) {
  const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
  const types = await load("@modelcontextprotocol/sdk/types.js");
  const requests = {
    "sampling/createMessage": types.CreateMessageRequestSchema,
    "elicitation/create": types.ElicitRequestSchema,
  };
  const notifications = {
    "notifications/tools/list_changed": types.ToolListChangedNotificationSchema,
    "notifications/resources/list_changed": types.ResourceListChangedNotificationSchema,
  };
  const client = new Client(IDENTITY, { capabilities: CAPABILITIES });
  return {
    client,
    onRequest: (method, answer) => client.setRequestHandler(requests[method], answer),
    onNotification: (method, hear) => client.setNotificationHandler(notifications[method], hear),
    callTool: (params, options) => client.callTool(params, undefined, options),
    connect: async () => client.connect(await transport(new URL(url))),
  };
}

async function streamable(url) {
  const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");
  return new StreamableHTTPClientTransport(url);
}

async function eventStream(url) {
  const { SSEClientTransport } = await load("@modelcontextprotocol/sdk/client/sse.js");
  return new SSEClientTransport(url);
}

async function openVersion2(url, mode) {
  const { Client, StreamableHTTPClientTransport } = await load("@modelcontextprotocol/client");
  const options = { capabilities: CAPABILITIES, versionNegotiation: { mode } };
  const client = new Client(IDENTITY, options);
  return {
    client,
    onRequest: (method, answer) => client.setRequestHandler(method, answer),
    onNotification: (method, hear) => client.setNotificationHandler(method, hear),
    callTool: (params, options) => client.callTool(params, options),
    connect: () => client.connect(new StreamableHTTPClientTransport(new URL(url))),
  };
}

const OPENERS = {
  "sdk-http": (url) => openVersion1(url, streamable),
  "sdk-sse": (url) => openVersion1(url, eventStream),
  "client-legacy": (url) => openVersion2(url, "legacy"),
  "client-auto": (url) => openVersion2(url, "auto"),
};

export function open(name, url) {
  return OPENERS[name](url);
}
