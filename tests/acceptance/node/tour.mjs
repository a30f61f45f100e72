// One tour of everything a client does, with one SDK against one server; prints what happened as one line of JSON.
//
//   node tour.mjs SDK URL SERVER LABEL     SDK: see sdks.mjs; SERVER: fixture | everything; LABEL: names the long calls
//
// It judges nothing: the Python test that starts it knows what must be true. A step that throws reports its error.

import { open } from "./sdks.mjs";

const [sdk, url, server, label] = process.argv.slice(2);
const STEPS = 5;
const PAUSE_S = 0.15;
const HEAR_MS = 250;

// What the two servers call the same things.
const SERVERS = {
  fixture: {
    slow: (steps) => ["slow_steps", { label, steps, pause: PAUSE_S }],
    resource: "test://template/42/data",
    prompt: "test_simple_prompt",
    sampling: ["test_sampling", { prompt: "capital of France?" }],
    elicitation: ["test_elicitation", { message: "who?" }],
    change: ["test_trigger_tool_change", {}],
    changed: "notifications/tools/list_changed",
    filter: { toolsListChanged: true },
  },
  everything: {
    slow: (steps) => ["trigger-long-running-operation", { duration: steps * PAUSE_S, steps }],
    resource: "demo://resource/dynamic/text/42",
    prompt: "simple-prompt",
    sampling: ["trigger-sampling-request", { prompt: "capital of France?" }],
    elicitation: ["trigger-elicitation-request", {}],
    change: ["gzip-file-as-resource", { name: `${label}.gz`, data: "data:text/plain,hello" }],
    changed: "notifications/resources/list_changed",
  },
};
// 2026-07-28 has no requests of the server's own: the same questions come as answers that ask for input.
const MODERN = {
  sampling: ["test_input_required_result_sampling", {}],
  elicitation: ["test_input_required_result_elicitation", {}],
};

const text = (result) => result.content?.map((block) => block.text ?? block.type).join("\n");
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

const connection = await open(sdk, url);
const { client } = connection;
const call = async ([name, args], options) => connection.callTool({ name, arguments: args }, options);

connection.onRequest("sampling/createMessage", async () => ({
  role: "assistant",
  model: "test-model",
  content: { type: "text", text: "Paris" },
}));
connection.onRequest("elicitation/create", async () => ({
  action: "accept",
  content: { username: "alice", email: "a@example.com", name: "Alice" },
}));

const report = { steps: {} };
async function step(name, run) {
  try {
    report.steps[name] = await run();
  } catch (error) {
    report.steps[name] = { error: `${error.name}: ${error.message}`, code: error.code };
  }
}

await connection.connect();
const plan = { ...SERVERS[server] };
report.server = client.getServerVersion()?.name;
report.modern = (client.getNegotiatedProtocolVersion?.() ?? "") >= "2026-07-28";
if (report.modern) Object.assign(plan, MODERN);

await step("tools", async () => (await client.listTools()).tools.map((tool) => tool.name));
await step("echo", async () => text(await call(["echo", { message: "grüße, 世界 🦀" }])));
await step("resource", async () => (await client.readResource({ uri: plan.resource })).contents[0].text);
await step("prompt", async () => (await client.getPrompt({ name: plan.prompt })).messages[0].content.text);
await step("sampling", async () => text(await call(plan.sampling)));
await step("elicitation", async () => text(await call(plan.elicitation)));

await step("progress", async () => {
  const seen = [];
  const onprogress = ({ progress }) => seen.push({ progress, at: performance.now() });
  const result = await call(plan.slow(STEPS), { onprogress });
  const spread = seen.length > 1 ? seen.at(-1).at - seen[0].at : 0;
  return { order: seen.map(({ progress }) => progress), spread_ms: spread, result: text(result) };
});

await step("change", async () => {
  let heard = 0;
  connection.onNotification(plan.changed, () => void heard++);
  const subscription = report.modern ? await client.listen(plan.filter) : undefined;
  // A legacy client opens its standing stream in the background: until then there is nobody to tell.
  for (let attempt = 0; attempt < 20 && !heard; attempt++) {
    await call(plan.change);
    for (let waited = 0; waited < HEAR_MS && !heard; waited += 10) await sleep(10);
  }
  await subscription?.close();
  return heard > 0;
});

await step("cancelled", async () => {
  const giveUp = new AbortController();
  const outcome = call(plan.slow(100), { signal: giveUp.signal, onprogress: () => giveUp.abort("enough") });
  const error = await outcome.then(() => "the call finished", (reason) => String(reason?.message ?? reason));
  const alive = text(await call(["echo", { message: "still here" }]));
  return { error, alive };
});

if (server === "fixture" && sdk !== "sdk-sse" && !report.modern) {
  // The server closes the response stream half-way; the SDK resumes with Last-Event-ID by itself.
  await step("resumed", async () => text(await call(["test_reconnection", {}])));
}

await step("closed", async () => {
  await client.close();
  return true;
});
console.log(JSON.stringify(report));
process.exit(0);
