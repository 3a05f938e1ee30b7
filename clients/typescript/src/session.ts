import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

import { clone, create, type MessageInitShape } from "@bufbuild/protobuf";
import { type CallOptions, Code, ConnectError, type Client as Stub } from "@connectrpc/connect";

import { HeadraceError } from "./errors.js";
import { ErrorCode } from "./gen/headrace/v1/error_pb.js";
import type { GenerationEvent } from "./gen/headrace/v1/event_pb.js";
import type { GenerationService, StreamGenerateRequestSchema } from "./gen/headrace/v1/generation_service_pb.js";
import { MessageRole } from "./gen/headrace/v1/message_pb.js";
import { DisconnectPolicy, type GenerateRequest, GenerateRequestSchema } from "./gen/headrace/v1/request_pb.js";
import { Queue } from "./queue.js";

/** A stream that is lost is opened again so many times in a row, after waits that begin with RECONNECT_DELAY ms and double. */
const RECONNECTS = 8;
const RECONNECT_DELAY = 50;

/** What to generate: a request, or the prompt alone. */
export type Request = string | MessageInitShape<typeof GenerateRequestSchema>;
type Command = MessageInitShape<typeof StreamGenerateRequestSchema>;

export interface SessionOptions {
  /** Ends the session when it is aborted. */
  signal?: AbortSignal;
  /** Most time for everything; the server knows it as the deadline. */
  timeoutMs?: number;
}

/**
 * Runs generations over one stream. When the stream is lost, another is opened, and those generations go on that outlive a connection, by
 * DisconnectPolicy.KEEP or DRAIN; the others end with an error.
 */
export class Session {
  readonly #stub: Stub<typeof GenerationService>;
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  readonly #deadline: number | undefined;
  readonly #running = new Map<string, Generation>();
  #commands: Queue<Command> | undefined;

  constructor(stub: Stub<typeof GenerationService>, options: SessionOptions) {
    this.#stub = stub;
    this.#signal = options.signal ? AbortSignal.any([options.signal, this.#abort.signal]) : this.#abort.signal;
    this.#deadline = options.timeoutMs && Date.now() + options.timeoutMs;
  }

  /** Begins a generation. One without a request id gets one; with the id of one that runs in this session, it is that one. */
  start(request: Request): Generation {
    const message = clone(GenerateRequestSchema, create(GenerateRequestSchema, typeof request === "string" ? prompt(request) : request));
    message.requestId ||= randomUUID();
    const running = this.#running.get(message.requestId);
    if (running) return running;
    const generation = new Generation(message, this);
    this.#running.set(message.requestId, generation);
    if (this.#commands) this.#commands.push(...generation.commands());
    else void this.#read();
    return generation;
  }

  /** Ends the session. What still runs loses its reader. */
  close(): void {
    if (this.#running.size > 0) this.#abort.abort();
    else this.#commands?.end(); // the server ends the stream in good order
  }

  /** Sends a command on the stream that is open, if one is. */
  send(command: Command): void {
    this.#commands?.push(command);
  }

  /** Opens the stream, as often as is needed, and hands out what it brings, until it has ended and nothing runs any more. */
  async #read(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const commands = new Queue<Command>();
      this.#commands = commands;
      for (const generation of this.#running.values()) commands.push(...generation.commands());
      let error = new HeadraceError("the stream ended before the generation did", ErrorCode.NETWORK_ERROR);
      try {
        for await (const { events } of this.#stub.streamGenerate(commands, this.#options())) {
          attempt = 0;
          events.forEach((event) => this.#handOut(event));
        }
      } catch (reason) {
        error = HeadraceError.from(reason);
      }
      commands.end();
      if (!this.#survives(error, attempt < RECONNECTS)) return;
      await sleep(Math.min(RECONNECT_DELAY * 2 ** attempt, this.#timeLeft() ?? Infinity), undefined, { signal: this.#signal }).catch(() => {});
    }
  }

  /** Milliseconds; undefined where there is no deadline. */
  #timeLeft(): number | undefined {
    return this.#deadline && this.#deadline - Date.now();
  }

  #options(): CallOptions {
    const timeoutMs = this.#timeLeft();
    if (timeoutMs === undefined) return { signal: this.#signal };
    if (timeoutMs <= 0) throw new HeadraceError("the deadline is over", ErrorCode.TIMEOUT);
    return { signal: this.#signal, timeoutMs };
  }

  #handOut(event: GenerationEvent): void {
    const generation = this.#running.get(event.requestId);
    if (generation?.take(event)) this.#running.delete(event.requestId);
  }

  /** Ends the generations that end with the stream, and tells whether any remain. */
  #survives(error: HeadraceError, again: boolean): boolean {
    const resumes = again && !this.#signal.aborted && isLost(error);
    for (const [id, generation] of this.#running) {
      if (resumes && generation.request.onDisconnect >= DisconnectPolicy.DRAIN) continue;
      generation.end(error);
      this.#running.delete(id);
    }
    if (this.#running.size === 0) this.#commands = undefined;
    return this.#running.size > 0;
  }
}

/** One generation of a session. Iterating gives the events that have not been read yet, as they come; see Client.events. */
export class Generation implements AsyncIterable<GenerationEvent> {
  readonly #session: Session;
  readonly #events = new Queue<GenerationEvent>();
  #nextIndex = 0;
  #sinceChunk = 0;
  #seen = 0;
  #isCancelled = false;

  /** `request` is the request as it was sent, with its id. */
  constructor(readonly request: GenerateRequest, session: Session) {
    this.#session = session;
  }

  [Symbol.asyncIterator](): AsyncGenerator<GenerationEvent, void> {
    return this.#events[Symbol.asyncIterator]();
  }

  /** Asks the server to end the generation. The last event tells how it ended. */
  cancel(): void {
    this.#isCancelled = true; // where no stream is open, the next one begins with it
    this.#session.send(this.#cancelCommand());
  }

  /** What starts the generation on a stream, or takes it up where the last stream left it. */
  commands(): Command[] {
    this.#seen = this.#sinceChunk;
    this.#sinceChunk = 0;
    const { requestId } = this.request;
    // Before the first chunk the server may not know it yet; if it does, the id attaches to it.
    const first: Command =
      this.#nextIndex === 0
        ? { command: { case: "generate", value: this.request } }
        : { command: { case: "resume", value: { requestId, nextIndex: this.#nextIndex } } };
    return this.#isCancelled ? [first, this.#cancelCommand()] : [first];
  }

  #cancelCommand(): Command {
    return { command: { case: "cancel", value: { requestId: this.request.requestId } } };
  }

  /** Keeps an event for the reader, and tells whether it is the last one. */
  take(event: GenerationEvent): boolean {
    switch (event.event.case) {
      case "transition":
        if (++this.#sinceChunk <= this.#seen) return false; // told again after a resume
        break;
      case "chunk":
        if (event.event.value.index !== this.#nextIndex) {
          this.end(new HeadraceError(`chunk ${event.event.value.index} came where ${this.#nextIndex} was due`, ErrorCode.UNKNOWN_ERROR));
          return true;
        }
        this.#nextIndex += 1;
        this.#sinceChunk = this.#seen = 0;
        break;
      case "failed":
        this.end(new HeadraceError(event.event.value.message, event.event.value.code, event.event.value));
        return true;
    }
    this.#events.push(event);
    if (event.event.case === "completed") this.end();
    return event.event.case === "completed";
  }

  end(error?: HeadraceError): void {
    this.#events.end(error);
  }
}

/** A request of one message of the user. */
export function prompt(text: string) {
  return { messages: [{ role: MessageRole.USER, content: [{ part: { case: "text" as const, value: text } }] }] };
}

/** Whether the stream broke, as against Headrace having ended it: a refusal has a detail. */
function isLost({ cause, code, detail }: HeadraceError): boolean {
  if (!(cause instanceof ConnectError)) return code === ErrorCode.NETWORK_ERROR;
  // Libraries and proxies name a reset connection in their own ways.
  return cause.code === Code.Unavailable || (!detail && [Code.Aborted, Code.Canceled, Code.Internal].includes(cause.code));
}
