import { Code, ConnectError, type Transport } from "@connectrpc/connect";

import { BadRequestSchema } from "./gen/google/rpc/error_details_pb.js";
import { ErrorCode } from "./gen/headrace/v1/error_pb.js";
import { type ProviderError, ProviderErrorSchema } from "./gen/headrace/v1/result_pb.js";

/** For statuses that come from the connection and not from Headrace. */
const CODES: Partial<Record<Code, ErrorCode>> = {
  [Code.Canceled]: ErrorCode.CANCELLED,
  [Code.DeadlineExceeded]: ErrorCode.TIMEOUT,
  [Code.Unavailable]: ErrorCode.NETWORK_ERROR,
  [Code.Aborted]: ErrorCode.NETWORK_ERROR,
};

/** Why an RPC or a generation failed. `cause` is the ConnectError of the RPC, where there was one, with the gRPC code. */
export class HeadraceError extends Error {
  override readonly name = "HeadraceError";
  readonly code: ErrorCode;
  /** A finer word within the code, such as CONTEXT_LENGTH; empty where there is none. */
  readonly subreason: string;
  /** Milliseconds; undefined where nobody named a delay. */
  readonly retryAfterMs: number | undefined;
  readonly fieldViolations: readonly { field: string; description: string }[];

  /** `detail` is all that was told; undefined where the connection failed. */
  constructor(message: string, code: ErrorCode, readonly detail?: ProviderError, cause?: ConnectError) {
    super(message, { cause });
    this.code = code;
    this.subreason = detail?.subreason ?? "";
    const delay = detail?.rateLimit?.retryAfter;
    this.retryAfterMs = delay && Number(delay.seconds) * 1000 + delay.nanos / 1e6;
    // The ProviderError of a status comes without its violations: they stand in BadRequest.
    this.fieldViolations = cause?.findDetails(BadRequestSchema)[0]?.fieldViolations ?? detail?.fieldViolations ?? [];
  }

  /** The error of an RPC, or of a `failed` event. */
  static from(reason: unknown): HeadraceError {
    if (reason instanceof HeadraceError) return reason;
    const cause = ConnectError.from(reason);
    const detail = cause.findDetails(ProviderErrorSchema)[0];
    return new HeadraceError(cause.rawMessage, detail?.code ?? CODES[cause.code] ?? ErrorCode.UNKNOWN_ERROR, detail, cause);
  }
}

/** The same transport, except that what its RPCs throw is a HeadraceError. */
export function typed(transport: Transport): Transport {
  const rethrow = (error: unknown) => {
    throw HeadraceError.from(error);
  };
  return {
    unary: (...call) => transport.unary(...call).catch(rethrow),
    stream: async (...call) => {
      const response = await transport.stream(...call).catch(rethrow);
      return { ...response, message: typedIterable(response.message) };
    },
  };
}

async function* typedIterable<T>(messages: AsyncIterable<T>): AsyncIterable<T> {
  try {
    yield* messages;
  } catch (error) {
    throw HeadraceError.from(error);
  }
}
