import { Readable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";

import { create, type MessageInitShape, toJsonString } from "@bufbuild/protobuf";
import { type CallOptions, Code, ConnectError } from "@connectrpc/connect";

import type { Client } from "./client.js";
import { HeadraceError, isLost, rethrow } from "./errors.js";
import * as v1 from "./v1.js";

/** The pauses, in milliseconds, before a lost stream is taken up again. After so many in a row without news its error is thrown. */
const PAUSES = [50, 100, 200, 400, 800, 1600, 3200, 6400];

/** The form of a request id, which the server tells in lower case. What has another form it refuses. */
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** What to generate: a request, or the prompt alone. */
export type Request = string | MessageInitShape<typeof v1.GenerateRequestSchema>;

/** A request of one message of the user. */
export function prompt(text: string) {
  return { messages: [{ role: v1.MessageRole.USER, content: [{ part: { case: "text" as const, value: text } }] }] };
}

/** A copy of the request, with an id, in the form in which events tell it. */
export function withId(request: Request): v1.GenerateRequest {
  const message = create(v1.GenerateRequestSchema, { ...(typeof request === "string" ? prompt(request) : request) });
  message.requestId = (message.requestId || crypto.randomUUID()).replace(UUID, (id) => id.toLowerCase());
  return message;
}

/** What a stream brings; the error is one that a session's stream broke with. */
type Received = AsyncIterable<{ events: v1.GenerationEvent[]; error?: unknown }>;

/**
 * The events of a generation, stream after stream, until the last one; `first` brings them where a session sends the request. The options
 * are those of Client.events.
 */
export function follow(client: Client, request: v1.GenerateRequest, options: CallOptions, first?: Readable) {
  const { requestId } = request;
  const runsOn = request.onDisconnect >= v1.DisconnectPolicy.DRAIN;
  request.onDisconnect ||= v1.DisconnectPolicy.KEEP; // so that there is something to attach to
  let hasEnded = false;
  const leaving = new AbortController(); // aborted by all that ends the reading
  const bounded = { ...options, signal: leaving.signal };
  for (const source of [client.closing.signal, options.signal, options.timeoutMs ? AbortSignal.timeout(options.timeoutMs) : undefined]) {
    if (source?.aborted) leaving.abort(source.reason);
    source?.addEventListener("abort", () => leaving.abort(source.reason), { signal: leaving.signal });
  }
  leaving.signal.addEventListener("abort", () => {
    first?.destroy();
    if (!hasEnded && !runsOn) client.abandon(requestId);
  });
  return read();

  async function* read(): AsyncGenerator<v1.GenerationEvent, void> {
    const told = new Set<string>();
    let [next, failures] = [0, 0];
    try {
      for (let stream: Received | undefined = first; !hasEnded; stream = undefined) {
        if (told.size + next > 0) stream = client.generation.attachGeneration({ requestId, nextIndex: next }, bounded);
        // Before the first event the server may not know the request. If it does, the same id attaches to it.
        stream ??= client.generation.streamGenerate(Readable.from([{ command: { case: "generate", value: request } }]), bounded);
        try {
          for await (const { events, error } of stream) {
            if (error) throw error;
            for (const event of events) {
              failures = 0;
              const { case: kind, value } = event.event;
              hasEnded = kind === "completed" || kind === "failed";
              if (kind === "failed") throw new HeadraceError(value.message, value.code, value);
              if (kind === "chunk" && value.index !== next++) rethrow(new ConnectError(`chunk ${value.index} out of turn`, Code.DataLoss));
              const fact = kind === "transition" || kind === "discontinuity" ? toJsonString(v1.GenerationEventSchema, event) : "";
              if (fact && told.size === told.add(fact).size) continue; // the stream that was lost has told it
              yield event;
            }
          }
          if (!hasEnded) rethrow(new ConnectError("the stream ended before the generation did", Code.Unavailable));
        } catch (error) {
          if (hasEnded && isLost(error)) return; // everything was told
          if (leaving.signal.aborted) rethrow(leaving.signal.reason);
          if (!isLost(error) || request.onDisconnect === v1.DisconnectPolicy.CANCEL || failures === PAUSES.length) throw error;
          await sleep(PAUSES[failures++], undefined, { signal: leaving.signal }).catch(() => {});
        }
      }
    } finally {
      leaving.abort();
    }
  }
}

/** One generation of a session. Iterating, once, gives its events; see Client.events. */
export interface Generation extends AsyncIterable<v1.GenerationEvent> {
  /** As it was sent, with its id. */
  request: v1.GenerateRequest;
  /** Cancels it, and waits for its end, which the loop then throws. Rejects where the server does not know it, or not yet. */
  cancel(): Promise<unknown>;
}

/** Runs generations over one stream. When it is lost, each of them goes on by itself, and the next to start opens another. */
export class Session {
  readonly #running = new Map<string, Readable>();
  #commands: Readable | undefined;

  constructor(private readonly client: Client) {}

  /** Begins a generation, with the options of Client.events. What it brings is kept in memory until it is read. */
  start(request: Request, options: CallOptions = {}): Generation {
    const message = withId(request);
    const { requestId } = message;
    if (this.#running.has(requestId)) throw new Error(`${requestId} runs in this session already`);
    const received = queue();
    const events = follow(this.client, message, options, received);
    this.#running.set(requestId, received);
    if (!this.#commands) void this.#read((this.#commands = queue()));
    this.#commands.push({ command: { case: "generate", value: message } });
    return { request: message, cancel: () => this.client.request.cancelRequest({ requestId }), [Symbol.asyncIterator]: () => events };
  }

  /** Nothing more is going to start. What runs goes on to its end. */
  close(): void {
    this.#commands?.push(null);
  }

  /** Hands out what the stream brings, and why it broke. */
  async #read(commands: Readable): Promise<void> {
    try {
      for await (const { events } of this.client.generation.streamGenerate(commands, { signal: this.client.closing.signal })) {
        for (const event of events) {
          const received = this.#running.get(event.requestId);
          received?.push({ events: [event] });
          if (event.event.case !== "completed" && event.event.case !== "failed") continue;
          received?.push(null);
          this.#running.delete(event.requestId);
        }
      }
    } catch (error) {
      for (const received of this.#running.values()) received.push({ events: [], error });
    }
    this.#commands = undefined;
    for (const received of this.#running.values()) received.push(null);
    this.#running.clear();
  }
}

/** What is pushed into it and not read yet, up to null. */
const queue = () => new Readable({ objectMode: true, read() {} });
