/** The helper against a server that plays scripted streams. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type Http2Server } from "node:http2";
import type { AddressInfo } from "node:net";
import { afterEach, test } from "node:test";

import type { MessageInitShape } from "@bufbuild/protobuf";
import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";

import { Client, HeadraceError, prompt, type Request } from "../src/index.js";
import {
  DisconnectPolicy,
  ErrorCode,
  type GenerateRequest,
  type GenerationEventSchema,
  GenerationService,
  RequestService,
  RequestState,
  type StreamGenerateRequest,
} from "../src/v1.js";
import { failure } from "./support.js";

type Event = MessageInitShape<typeof GenerationEventSchema>["event"];
/** What the server does on one stream: it tells events of every generation that it is asked for, and ends, or stays. */
type Stream = { events: Event[]; error?: ConnectError; stays?: true };
/** What the server was asked. */
type Call = { generate: GenerateRequest } | { attach: string; nextIndex: number } | { cancel: string };

let server: Http2Server | undefined;
let client: Client | undefined;
/** Settles with the id of the generation that was cancelled first. */
let cancelled: Promise<string>;

afterEach(async () => {
  await client?.close();
  server?.close();
});

/** Starts a server that plays one stream after the other, the first for `together` generations; gives the calls that it will have got. */
async function serve(streams: Stream[], together = 1): Promise<Call[]> {
  const calls: Call[] = [];
  let tellCancelled = (_: string) => {};
  cancelled = new Promise((resolve) => (tellCancelled = resolve));
  async function* play(stream: Stream | undefined, ids: string[], signal: AbortSignal) {
    for (const event of stream?.events ?? []) yield { events: ids.map((requestId) => ({ requestId, event: event! })) };
    if (stream?.error) throw stream.error;
    if (stream?.stays && !signal.aborted) await once(signal, "abort");
  }
  const adapter = connectNodeAdapter({
    routes: (router) => {
      router.service(GenerationService, {
        async *streamGenerate(requests, { signal }) {
          const ids: string[] = [];
          const commands = requests[Symbol.asyncIterator](); // a loop that is left would end the stream
          while (ids.length < together) {
            const { command } = (await commands.next()).value as StreamGenerateRequest;
            assert.equal(command.case, "generate");
            calls.push({ generate: command.value });
            ids.push(command.value.requestId);
          }
          together = 1;
          yield* play(streams.shift(), ids, signal);
        },
        async *attachGeneration({ requestId, nextIndex }, { signal }) {
          calls.push({ attach: requestId, nextIndex });
          yield* play(streams.shift(), [requestId], signal);
        },
      });
      router.service(RequestService, {
        cancelRequest({ requestId }) {
          calls.push({ cancel: requestId });
          tellCancelled(requestId);
          return {};
        },
      });
    },
  });
  server = createServer(adapter);
  await new Promise<void>((resolve) => server!.listen(0, "127.0.0.1", resolve));
  client = new Client(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  return calls;
}

const transition = (toState: RequestState): Event => ({ case: "transition", value: { toState } });
const chunk = (index: number, text: string): Event => ({ case: "chunk", value: { index, delta: { case: "text", value: text } } });
const completed: Event = { case: "completed", value: {} };
const failed: Event = { case: "failed", value: { code: ErrorCode.NETWORK_ERROR, message: "the provider is not to be reached" } };
const lost = new ConnectError("gone", Code.Unavailable);
const requestId = "5f0c2a52-93a1-4c88-9d0e-2f6a7a0f3b11";
const tied: Request = { ...prompt("Hello"), requestId, onDisconnect: DisconnectPolicy.CANCEL };
const kept: Request = { ...prompt("Hello"), requestId, onDisconnect: DisconnectPolicy.KEEP };
const plain: Request = { ...prompt("Hello"), requestId };

/** What was told, in words, and the error that it ended with. */
async function read(events: AsyncIterable<{ event: { case?: string | undefined; value?: unknown } }>): Promise<[string, unknown]> {
  const told: string[] = [];
  try {
    for await (const { event } of events as ReturnType<Client["events"]>) {
      if (event.case === "transition") told.push(RequestState[event.value.toState]!);
      else if (event.case === "chunk") told.push(event.value.delta.value as string);
      else told.push(event.case!);
    }
  } catch (error) {
    return [told.join(" "), error];
  }
  return [told.join(" "), undefined];
}

/** Reads text until the first piece, and leaves. */
async function leave(text: AsyncIterable<string>): Promise<void> {
  for await (const piece of text) {
    assert.equal(piece, "a");
    return;
  }
}

test("nothing is told twice when streams are lost", async () => {
  const calls = await serve([
    { events: [], error: lost },
    { events: [transition(RequestState.VALIDATING)], error: lost },
    { events: [transition(RequestState.VALIDATING), transition(RequestState.STREAMING), chunk(0, "a"), chunk(1, "b")], error: lost },
    { events: [transition(RequestState.STREAMING), chunk(2, "c")] },
    { events: [completed] },
  ]);
  assert.deepEqual(await read(client!.events(plain)), ["VALIDATING STREAMING a b c completed", undefined]);
  const [first, second, ...later] = calls;
  assert.ok(first && "generate" in first && first.generate.onDisconnect === DisconnectPolicy.KEEP);
  assert.deepEqual(second, first);
  assert.deepEqual(later, [0, 2, 3].map((nextIndex) => ({ attach: requestId, nextIndex })));
});

test("each generation of a session goes on by itself when the stream is lost", async () => {
  const rest = [chunk(1, "b"), completed];
  const calls = await serve([{ events: [chunk(0, "a")], error: lost }, { events: rest }, { events: rest }, { events: [completed] }], 2);
  const session = client!.session();
  const generations = [session.start("Hello"), session.start("Hello")];
  for (const told of await Promise.all(generations.map(read))) assert.deepEqual(told, ["a b completed", undefined]);
  assert.deepEqual(await read(session.start(plain)), ["completed", undefined]);
  session.close();
  assert.deepEqual(
    new Set(calls.slice(2, 4)),
    new Set(generations.map(({ request }) => ({ attach: request.requestId, nextIndex: 1 }))),
  );
  assert.equal(calls.length, 5);
});

test("why the stream of a session broke is the error of a generation that ends with it", async () => {
  await serve([{ events: [chunk(0, "a")], error: new ConnectError("no", Code.Unauthenticated) }]);
  const [told, error] = await read(client!.session().start(tied));
  assert.equal(told, "a");
  assert.ok(error instanceof HeadraceError);
  assert.equal((error.cause as ConnectError).code, Code.Unauthenticated);
});

test("a generation that runs in a session is not started again", async () => {
  await serve([{ events: [chunk(0, "a")], stays: true }]);
  const session = client!.session();
  session.start(kept);
  assert.throws(() => session.start(kept), /runs in this session already/);
});

test("an id is sent in the form in which events tell it", async () => {
  const calls = await serve([{ events: [chunk(0, "a"), completed] }, { events: [completed] }]);
  const shouted = { ...plain, requestId: requestId.toUpperCase() };
  assert.deepEqual(await read(client!.events(shouted)), ["a completed", undefined]);
  const session = client!.session();
  const generation = session.start(shouted);
  assert.throws(() => session.start(plain), /runs in this session already/);
  assert.deepEqual(await read(generation), ["completed", undefined]);
  assert.deepEqual(calls.map((call) => "generate" in call && call.generate.requestId), [requestId, requestId]);
});

test("a lost stream is an error when the generation ends with it", async () => {
  await serve([{ events: [chunk(0, "a")], error: lost }]);
  const [told, error] = await read(client!.events(tied));
  assert.equal(told, "a");
  assert.ok(error instanceof HeadraceError);
  assert.equal(error.code, ErrorCode.NETWORK_ERROR);
  assert.equal((error.cause as ConnectError).code, Code.Unavailable);
});

test("a stream without an end is an error when its status is OK", async () => {
  await serve([{ events: [chunk(0, "a")] }]);
  const [told, error] = await read(client!.events(tied));
  assert.equal(told, "a");
  assert.ok(error instanceof HeadraceError);
});

test("a generation that failed is neither resumed nor cancelled", async () => {
  const calls = await serve([{ events: [chunk(0, "a"), failed], error: lost }]);
  const [told, error] = await read(client!.events(plain));
  assert.equal(told, "a");
  assert.ok(error instanceof HeadraceError);
  assert.deepEqual([error.code, error.detail?.message], [ErrorCode.NETWORK_ERROR, error.message]);
  await client!.close();
  assert.equal(calls.length, 1);
});

test("a refusal is not repeated", async () => {
  const calls = await serve([{ events: [], error: new ConnectError("no", Code.Unauthenticated) }]);
  const [, error] = await read(client!.events(plain));
  assert.ok(error instanceof HeadraceError);
  assert.equal((error.cause as ConnectError).code, Code.Unauthenticated);
  assert.equal(calls.filter((call) => "generate" in call).length, 1);
});

test("the generation is cancelled when its loop is left", async () => {
  await serve([{ events: [chunk(0, "a")], stays: true }]);
  await leave(client!.text(plain));
  assert.equal(await cancelled, requestId);
});

test("the generation runs on when its loop is left and the request says so", async () => {
  const calls = await serve([{ events: [chunk(0, "a")], stays: true }]);
  await leave(client!.text(kept));
  await client!.close();
  assert.equal(calls.length, 1);
});

test("what runs is cancelled when the client is closed", async () => {
  const calls = await serve([{ events: [chunk(0, "a")], stays: true }]);
  const events = client!.events(plain);
  await events.next();
  const session = client!.session();
  const { request } = session.start("never read");
  await client!.close();
  assert.equal((await failure(events.next())).code, ErrorCode.CANCELLED);
  assert.deepEqual(
    new Set(calls.flatMap((call) => ("cancel" in call ? [call.cancel] : []))),
    new Set([requestId, request.requestId]),
  );
});

test("an aborted signal is an error with its code, and cancels", async () => {
  await serve([{ events: [chunk(0, "a")], stays: true }]);
  const abort = new AbortController();
  await assert.rejects(
    async () => {
      for await (const text of client!.text(plain, { signal: abort.signal })) {
        assert.equal(text, "a");
        abort.abort();
      }
    },
    { name: "HeadraceError", code: ErrorCode.CANCELLED },
  );
  assert.equal(await cancelled, requestId);
});

test("the generation is cancelled when it takes too long", async () => {
  await serve([{ events: [chunk(0, "a")], stays: true }]);
  const [told, error] = await read(client!.events(plain, { timeoutMs: 200 }));
  assert.equal(told, "a");
  assert.ok(error instanceof HeadraceError);
  assert.equal(error.code, ErrorCode.TIMEOUT);
  assert.equal(await cancelled, requestId);
});

test("reconnecting ends with the deadline when nobody listens", async () => {
  await serve([]);
  server?.close();
  await assert.rejects(
    async () => {
      for await (const text of client!.text(plain, { timeoutMs: 120 })) assert.fail(text);
    },
    { name: "HeadraceError", code: ErrorCode.TIMEOUT },
  );
});

test("a missing chunk is an error", async () => {
  await serve([{ events: [chunk(0, "a"), chunk(2, "c"), completed] }]);
  const [told, error] = await read(client!.events(plain));
  assert.equal(told, "a");
  assert.match(String(error), /chunk 2/);
});

test("text is an error when the answer starts again", async () => {
  await serve([{ events: [chunk(0, "a"), { case: "discontinuity", value: {} }, chunk(1, "A"), completed] }]);
  await assert.rejects(async () => {
    for await (const text of client!.text(plain)) assert.equal(text, "a");
  }, /starts again/);
});
