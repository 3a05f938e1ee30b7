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
  type GenerationEventSchema,
  GenerationService,
  RequestState,
  type StreamGenerateRequest,
} from "../src/v1.js";

type Event = MessageInitShape<typeof GenerationEventSchema>["event"];
/** What the server does on one stream: it tells events of the generation that the first command is about, and ends, or stays. */
type Stream = { events: Event[]; error?: ConnectError; stays?: true };

let server: Http2Server | undefined;
let client: Client | undefined;
/** Settles when a stream has ended, one that stays when its client has gone away. */
let left: Promise<void>;

afterEach(() => {
  client?.close();
  server?.close();
});

/** Starts a server that plays one stream after the other; gives the commands that it will have got. */
async function serve(...streams: Stream[]): Promise<StreamGenerateRequest[]> {
  const commands: StreamGenerateRequest[] = [];
  let clientLeft = () => {};
  left = new Promise((resolve) => (clientLeft = resolve));
  const adapter = connectNodeAdapter({
    routes: (router) =>
      router.service(GenerationService, {
        async *streamGenerate(requests, { signal }) {
          for await (const request of requests) {
            const next = streams[commands.push(request) - 1];
            const { requestId } = request.command.value as { requestId: string };
            for (const event of next?.events ?? []) yield { events: [{ requestId, event: event! }] };
            if (next?.error) throw next.error;
            if (next?.stays && !signal.aborted) await once(signal, "abort");
            clientLeft();
            return;
          }
        },
      }),
  });
  server = createServer(adapter);
  await new Promise<void>((resolve) => server!.listen(0, "127.0.0.1", resolve));
  client = new Client(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  return commands;
}

const transition = (toState: RequestState): Event => ({ case: "transition", value: { toState } });
const chunk = (index: number, text: string): Event => ({ case: "chunk", value: { index, delta: { case: "text", value: text } } });
const completed: Event = { case: "completed", value: {} };
const lost = new ConnectError("gone", Code.Unavailable);
const kept: Request = { ...prompt("Hello"), onDisconnect: DisconnectPolicy.KEEP };

/** What a generation told, in words, and the error that it ended with. */
async function read(request: Request): Promise<[string, unknown]> {
  const told: string[] = [];
  try {
    for await (const { event } of client!.events(request)) {
      if (event.case === "transition") told.push(RequestState[event.value.toState]!);
      else if (event.case === "chunk") told.push(event.value.delta.value as string);
      else told.push(event.case!);
    }
  } catch (error) {
    return [told.join(" "), error];
  }
  return [told.join(" "), undefined];
}

test("nothing is told twice when streams are lost", async () => {
  const commands = await serve(
    { events: [transition(RequestState.VALIDATING)], error: lost },
    { events: [transition(RequestState.VALIDATING), transition(RequestState.STREAMING), chunk(0, "a"), chunk(1, "b")], error: lost },
    { events: [chunk(2, "c"), completed] },
  );
  assert.deepEqual(await read(kept), ["VALIDATING STREAMING a b c completed", undefined]);
  assert.deepEqual(commands[1]?.command, commands[0]?.command);
  assert.equal(commands[2]?.command.case === "resume" && commands[2].command.value.nextIndex, 2);
});

test("a lost stream is an error when the generation ends with it", async () => {
  await serve({ events: [chunk(0, "a")], error: lost });
  const [told, error] = await read("Hello");
  assert.equal(told, "a");
  assert.ok(error instanceof HeadraceError);
  assert.equal(error.code, ErrorCode.NETWORK_ERROR);
  assert.equal((error.cause as ConnectError).code, Code.Unavailable);
});

test("a stream without an end is an error when its status is OK", async () => {
  await serve({ events: [chunk(0, "a")] });
  const [told, error] = await read("Hello");
  assert.equal(told, "a");
  assert.ok(error instanceof HeadraceError);
});

test("the server learns of it when the loop is left", async () => {
  await serve({ events: [chunk(0, "a")], stays: true });
  for await (const text of client!.text("Hello")) {
    assert.equal(text, "a");
    break;
  }
  await left;
});

test("an aborted signal is an error with its code", async () => {
  await serve({ events: [chunk(0, "a")], stays: true });
  const abort = new AbortController();
  await assert.rejects(
    async () => {
      for await (const text of client!.text(kept, { signal: abort.signal })) {
        assert.equal(text, "a");
        abort.abort();
      }
    },
    { name: "HeadraceError", code: ErrorCode.CANCELLED },
  );
  await left;
});

test("reconnecting ends with the deadline when nobody listens", async () => {
  await serve();
  server?.close();
  await assert.rejects(
    async () => {
      for await (const text of client!.text(kept, { timeoutMs: 120 })) assert.fail(text);
    },
    { name: "HeadraceError", code: ErrorCode.TIMEOUT },
  );
});

test("a missing chunk is an error", async () => {
  await serve({ events: [chunk(0, "a"), chunk(2, "c"), completed] });
  const [told, error] = await read("Hello");
  assert.equal(told, "a");
  assert.match(String(error), /chunk 2/);
});

test("text is an error when the answer starts again", async () => {
  await serve({ events: [chunk(0, "a"), { case: "discontinuity", value: {} }, chunk(1, "A"), completed] });
  await assert.rejects(async () => {
    for await (const text of client!.text("Hello")) assert.equal(text, "a");
  }, /starts again/);
});
