import { type CallOptions, createClient, type Client as Stub } from "@connectrpc/connect";
import { createGrpcTransport, type GrpcTransportOptions, Http2SessionManager } from "@connectrpc/connect-node";

import { typed } from "./errors.js";
import { follow, type Request, Session, withId } from "./generation.js";
import * as v1 from "./v1.js";

/** A connection with the stubs on it. What their RPCs throw is a HeadraceError. */
export class Client {
  readonly generation: Stub<typeof v1.GenerationService>;
  readonly request: Stub<typeof v1.RequestService>;
  readonly provider: Stub<typeof v1.ProviderService>;
  readonly analytics: Stub<typeof v1.AnalyticsService>;
  readonly #connection: Http2SessionManager;
  /** Aborted when the client is closed. @internal */
  readonly closing = new AbortController();
  #abandoned = Promise.resolve();

  /** `baseUrl` is `http://HOST:PORT` or `https://HOST:PORT`; options are those of createGrpcTransport. */
  constructor(baseUrl: string, options: Partial<GrpcTransportOptions> = {}) {
    this.#connection = new Http2SessionManager(baseUrl, options, options.nodeOptions);
    const transport = typed(createGrpcTransport({ sessionManager: this.#connection, ...options, baseUrl }));
    this.generation = createClient(v1.GenerationService, transport);
    this.request = createClient(v1.RequestService, transport);
    this.provider = createClient(v1.ProviderService, transport);
    this.analytics = createClient(v1.AnalyticsService, transport);
  }

  /**
   * Runs one generation, as soon as it is iterated over, and yields its events, `completed` last; one that fails throws a HeadraceError. It
   * is cancelled when the loop is left, the `signal` aborted or `timeoutMs` over, unless the request sets `onDisconnect` to KEEP or DRAIN.
   */
  events(request: Request, options: CallOptions = {}): AsyncGenerator<v1.GenerationEvent, void> {
    return follow(this, withId(request), options);
  }

  /** Runs one generation, as `events` does, and yields its text. An answer that starts again (MidStreamFallback.RESTART) is an error. */
  async *text(request: Request, options: CallOptions = {}): AsyncGenerator<string, void> {
    for await (const { event } of this.events(request, options)) {
      if (event.case === "discontinuity") throw new Error("the answer starts again, which its text alone cannot show: read the events");
      if (event.case === "chunk" && event.value.delta.case === "text") yield event.value.delta.value;
    }
  }

  /** A session, whose stream is opened by its first generation. */
  session(): Session {
    return new Session(this);
  }

  /** Leaves what runs, and closes the connection. */
  async close(): Promise<void> {
    this.closing.abort();
    await this.#abandoned;
    this.#connection.abort();
  }

  /** Cancels a generation that has lost its reader, whom an error would not reach either. @internal */
  abandon(requestId: string): void {
    this.#abandoned = Promise.allSettled([this.#abandoned, this.request.cancelRequest({ requestId }, { timeoutMs: 5000 })]).then(() => {});
  }
}
