import { createClient, type Client as Stub } from "@connectrpc/connect";
import { createGrpcTransport, type GrpcTransportOptions, Http2SessionManager } from "@connectrpc/connect-node";

import { typed } from "./errors.js";
import { AnalyticsService } from "./gen/headrace/v1/analytics_service_pb.js";
import type { GenerationEvent } from "./gen/headrace/v1/event_pb.js";
import { GenerationService } from "./gen/headrace/v1/generation_service_pb.js";
import { ProviderService } from "./gen/headrace/v1/provider_service_pb.js";
import { RequestService } from "./gen/headrace/v1/request_service_pb.js";
import { type Request, Session, type SessionOptions } from "./session.js";
import { text } from "./text.js";

/** A connection with the stubs on it. What their RPCs throw is a HeadraceError. */
export class Client {
  readonly generation: Stub<typeof GenerationService>;
  readonly request: Stub<typeof RequestService>;
  readonly provider: Stub<typeof ProviderService>;
  readonly analytics: Stub<typeof AnalyticsService>;
  readonly #connection: Http2SessionManager;

  /** `baseUrl` is `http://HOST:PORT` or `https://HOST:PORT`; options are those of createGrpcTransport. */
  constructor(baseUrl: string, options: Partial<GrpcTransportOptions> = {}) {
    this.#connection = new Http2SessionManager(baseUrl, options, options.nodeOptions);
    const transport = typed(createGrpcTransport({ sessionManager: this.#connection, ...options, baseUrl }));
    this.generation = createClient(GenerationService, transport);
    this.request = createClient(RequestService, transport);
    this.provider = createClient(ProviderService, transport);
    this.analytics = createClient(AnalyticsService, transport);
  }

  /**
   * Runs one generation on a stream of its own and yields its events, `completed` last; one that fails throws a HeadraceError. To leave
   * the loop, or to abort the signal, is to go away: the request's `onDisconnect` says what becomes of the generation then.
   */
  async *events(request: Request, options: SessionOptions = {}): AsyncGenerator<GenerationEvent, void> {
    const session = this.session(options);
    try {
      yield* session.start(request);
    } finally {
      session.close();
    }
  }

  /** Runs one generation, as `events` does, and yields the pieces of its text. */
  text(request: Request, options: SessionOptions = {}): AsyncGenerator<string, void> {
    return text(this.events(request, options));
  }

  /** A session, whose stream is opened by its first generation. */
  session(options: SessionOptions = {}): Session {
    return new Session(this.generation, options);
  }

  /** Closes the connection. */
  close(): void {
    this.#connection.abort();
  }
}
