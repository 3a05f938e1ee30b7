/** The steps of tests/clients/README.md, each named as there. */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { appendFileSync, readFileSync } from "node:fs";
import net from "node:net";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";

import { create, createRegistry, type DescFile, equals, fromBinary, fromJsonString, toBinary } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";

import { ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { Client } from "../src/index.js";
import { Queue } from "./queue.js";
import * as v1 from "../src/v1.js";
import { checkCancelled, checkSlow, checkTransitions, collect, ECHOED, failure, milliseconds, requestTo, resultOf, SLOW, textOf } from "./support.js";

const { HEADRACE_TARGET, HEADRACE_PROXY, HEADRACE_VECTORS, HEADRACE_CLIENT_RESULTS, CI } = process.env;
const missing = HEADRACE_TARGET ? false : "there is no service: run this by `make test-clients`";
if (missing && CI === "true") throw new Error(missing);

const client = new Client(`http://${HEADRACE_TARGET ?? "unused.invalid"}`, { defaultTimeoutMs: 20_000 });
after(() => client.close());

function step(name: string, run: () => Promise<void>): void {
  test(name, { skip: missing }, async () => {
    let ok = false;
    try {
      await run();
      ok = true;
    } finally {
      if (HEADRACE_CLIENT_RESULTS) appendFileSync(HEADRACE_CLIENT_RESULTS, `${JSON.stringify({ language: "typescript", step: name, ok })}\n`);
    }
  });
}

test("wrong ids fail with the error of the service, and others go on", { skip: missing, timeout: 20_000 }, async () => {
  const session = client.session();
  const [wrong, good, worse] = [
    session.start({ ...requestTo("echo"), requestId: "Mine" }),
    session.start({ ...requestTo("echo"), requestId: randomUUID().toUpperCase() }),
    session.start({ ...requestTo("echo"), requestId: "Mine too", temperature: 3 }),
  ];
  const fields = async (events: AsyncIterable<v1.GenerationEvent>) =>
    (await failure(collect(events))).fieldViolations.map(({ field }) => field);
  assert.deepEqual(await Promise.all([fields(wrong), fields(worse)]), [["request_id"], ["request_id", "temperature"]]);
  assert.equal((await collect(good)).text, ECHOED);
  session.close();
  assert.deepEqual(await fields(client.events({ ...requestTo("echo"), requestId: "Mine" })), ["request_id"]);
});

step("unary", async () => {
  const request = requestTo("echo");
  let id: string | null = null;
  const { requestId, result } = await client.generation.generate(request, { onHeader: (header) => (id = header.get("x-request-id")) });
  assert.equal(requestId, request.requestId);
  assert.equal(id, request.requestId);
  assert.equal(textOf(result), ECHOED);
  assert.equal(result?.finishReason, v1.FinishReason.STOP);
  assert.equal(result.provider, "echo");
  const usage = create(v1.UsageSchema, { inputTokens: 3, outputTokens: 17, totalTokens: 20, source: v1.UsageSource.PROVIDER });
  assert.deepEqual(result.usage, usage);
});

step("stream", async () => {
  const commands = new Queue<{ command: { case: "generate"; value: v1.GenerateRequest } }>();
  commands.push({ command: { case: "generate", value: requestTo("slow") } });
  commands.end();
  checkSlow(await collect(received(client.generation.streamGenerate(commands))));

  checkSlow(await collect(client.events(requestTo("slow"))));
  let text = "";
  for await (const piece of client.text(requestTo("echo"))) text += piece;
  assert.equal(text, ECHOED);
});

step("tool_call", async () => {
  const tool = create(v1.ToolSchema, {
    name: "get_weather",
    description: "The weather in a city.",
    parametersJson: '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}',
  });
  const seen = await collect(client.events({ ...requestTo("tool"), tools: [tool] }));
  const deltas = seen.chunks.flatMap(({ delta }) => (delta.case === "toolCall" ? [delta.value] : []));
  const joined = (field: "id" | "name" | "argumentsDelta") => deltas.map((delta) => delta[field]).join("");
  const call = create(v1.ToolCallSchema, { id: "call_weather_1", name: "get_weather", argumentsJson: '{"city":"Paris"}' });
  assert.ok(deltas.every(({ position }) => position === 0));
  assert.deepEqual([joined("id"), joined("name"), joined("argumentsDelta")], [call.id, call.name, call.argumentsJson]);
  const result = resultOf(seen);
  assert.equal(result?.finishReason, v1.FinishReason.TOOL_CALLS);
  assert.deepEqual(result.content.map(({ part }) => part.value), [call]);

  const answer = { toolCallId: call.id, content: [{ part: { case: "text" as const, value: "sunny" } }] };
  const next = create(v1.GenerateRequestSchema, { ...requestTo("echo"), tools: [tool] });
  next.messages.push(
    create(v1.ChatMessageSchema, { role: v1.MessageRole.ASSISTANT, content: result.content }),
    create(v1.ChatMessageSchema, { role: v1.MessageRole.TOOL, content: [{ part: { case: "toolResult", value: answer } }] }),
  );
  const response = await client.generation.generate(next);
  assert.match(textOf(response.result), /^You said: sunny /);
});

step("two_on_one_stream", async () => {
  const session = client.session();
  const slow = session.start(requestTo("slow"));
  const echo = session.start(requestTo("echo"));
  const ended: string[] = [];
  const [ofSlow, ofEcho] = await Promise.all([
    collect(slow).finally(() => ended.push("slow")),
    collect(echo).finally(() => ended.push("echo")),
  ]);
  session.close();
  checkSlow(ofSlow);
  assert.equal(ofEcho.text, ECHOED);
  assert.equal(textOf(resultOf(ofEcho)), ECHOED);
  assert.deepEqual(ended, ["echo", "slow"]);
});

step("cancel", async () => {
  const request = requestTo("slow");
  const commands = new Queue<{ command: { case: "generate"; value: v1.GenerateRequest } | { case: "cancel"; value: { requestId: string } } }>();
  commands.push({ command: { case: "generate", value: request } });
  let last: v1.GenerationEvent["event"] | undefined;
  const error = await failure(
    (async () => {
      for await (const { event } of received(client.generation.streamGenerate(commands))) {
        last = event;
        if (event.case === "chunk" && event.value.index === 0) {
          commands.push({ command: { case: "cancel", value: { requestId: request.requestId } } });
          commands.end();
        }
      }
    })(),
  );
  assert.equal((error.cause as ConnectError).code, Code.Canceled);
  await checkCancelled(client, request.requestId, last?.case === "failed" ? last.value : undefined);

  const session = client.session();
  const generation = session.start(requestTo("slow"));
  const failed = await failure(
    (async () => {
      for await (const { event } of generation) if (event.case === "chunk") generation.cancel();
    })(),
  );
  session.close();
  await checkCancelled(client, generation.request.requestId, failed.detail);
});

step("deadline", async () => {
  const { requestId, ...request } = requestTo("stuck");
  const error = await failure(client.generation.generate({ ...request, requestId }, { timeoutMs: 300 }));
  assert.equal((error.cause as ConnectError).code, Code.DeadlineExceeded);
  assert.equal(error.code, v1.ErrorCode.TIMEOUT);
  const limit = Date.now() + 5000;
  let record = (await client.request.getRequest({ requestId })).request;
  while (record?.state !== v1.RequestState.FAILED && Date.now() < limit) {
    await sleep(20);
    record = (await client.request.getRequest({ requestId })).request;
  }
  assert.equal(record?.state, v1.RequestState.FAILED);
  assert.equal(record.errorCode, v1.ErrorCode.TIMEOUT);
});

step("resume", async () => {
  let connections = 0;
  const createConnection = (authority: URL) => {
    connections += 1;
    return net.connect(Number(authority.port), authority.hostname);
  };
  const through = new Client(`http://${HEADRACE_PROXY}`, { nodeOptions: { createConnection } });
  try {
    checkSlow(await collect(through.events({ ...requestTo("slow"), onDisconnect: v1.DisconnectPolicy.KEEP }, { timeoutMs: 20_000 })));
  } finally {
    through.close();
  }
  assert.ok(connections >= 3, `${connections} connections: it was not resumed twice`);
});

step("rate_limit", async () => {
  const error = await failure(client.generation.generate(requestTo("limited")));
  const cause = error.cause as ConnectError;
  assert.equal(cause.code, Code.ResourceExhausted);
  const info = cause.findDetails(ErrorInfoSchema)[0];
  assert.deepEqual([info?.reason, info?.domain], ["RATE_LIMIT_EXCEEDED", "headrace.dev"]);
  const delay = durationMs(cause.findDetails(RetryInfoSchema)[0]!.retryDelay!);
  assert.ok(7000 <= delay && delay <= 8400, `${delay}`);
  assert.equal(cause.metadata.get("grpc-retry-pushback-ms"), "-1");
  assert.deepEqual([error.code, error.retryAfterMs, error.detail?.httpStatus], [v1.ErrorCode.RATE_LIMIT_EXCEEDED, delay, 429]);
});

step("invalid", async () => {
  const messages = [{ role: v1.MessageRole.USER, content: [{}] }];
  const request = create(v1.GenerateRequestSchema, { requestId: requestTo("echo").requestId, provider: "echo", messages, temperature: 3 });
  const error = await failure(client.generation.generate(request));
  assert.equal((error.cause as ConnectError).code, Code.InvalidArgument);
  assert.deepEqual(error.fieldViolations.map(({ field }) => field).sort(), ["messages[0].content[0]", "temperature"]);
});

step("watch", async () => {
  const request = requestTo("slow");
  const { requestId, state } = await client.generation.submitGeneration({ request });
  assert.equal(requestId, request.requestId);
  assert.ok(state < v1.RequestState.COMPLETED, v1.RequestState[state]);

  const transitions: v1.StateTransition[] = [];
  for await (const { transition } of client.request.watchRequest({ requestId })) transitions.push(transition!);
  checkTransitions(transitions);
  assert.ok(milliseconds(transitions.at(-1)!) - milliseconds(transitions[0]!) > 1000);

  const seen = await collect(received(client.generation.attachGeneration({ requestId, nextIndex: 60 })));
  assert.ok(seen.chunks.length > 0);
  assert.deepEqual(
    seen.chunks.map(({ index }) => index),
    seen.chunks.map((_, place) => 60 + place),
  );
  assert.equal(textOf(resultOf(seen)), SLOW);
});

step("vectors", async () => {
  const files = Object.entries(v1).flatMap(([name, file]) => (name.startsWith("file_") ? [file as DescFile] : []));
  const registry = createRegistry(...files);
  const read = (name: string) => readFileSync(join(HEADRACE_VECTORS!, name));
  const index = JSON.parse(read("index.json").toString()) as { name: string; type: string }[];
  assert.ok(index.length >= 50);
  for (const { name, type } of index) {
    const schema = registry.getMessage(type);
    assert.ok(schema, type);
    const binary = read(`${name}.binpb`);
    const decoded = fromBinary(schema, binary);
    assert.ok(binary.equals(toBinary(schema, decoded)), `${name} is encoded as ${Buffer.from(toBinary(schema, decoded)).toString("hex")}`);
    const fromJson = fromJsonString(schema, read(`${name}.json`).toString(), { registry });
    assert.ok(equals(schema, decoded, fromJson), `${name} is another message in JSON`);
  }
});

/** The events of a stream of the stubs. */
async function* received(responses: AsyncIterable<{ events: v1.GenerationEvent[] }>): AsyncGenerator<v1.GenerationEvent> {
  for await (const { events } of responses) yield* events;
}
