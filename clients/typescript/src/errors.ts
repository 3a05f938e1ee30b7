import { Code, ConnectError, type Transport } from "@connectrpc/connect";

import { BadRequestSchema } from "./gen/google/rpc/error_details_pb.js";
import { ErrorCode, type ProviderError, ProviderErrorSchema } from "./v1.js";

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
  /** Milliseconds; undefined where nobody named a delay. */
  readonly retryAfterMs: number | undefined;
  readonly fieldViolations: readonly { field: string; description: string }[];

  /** `detail` is all that was told, such as the `subreason`; undefined where the connection failed. */
  constructor(message: string, readonly code: ErrorCode, readonly detail?: ProviderError, cause?: ConnectError) {
    super(message, { cause });
    const delay = detail?.rateLimit?.retryAfter;
    this.retryAfterMs = delay && Number(delay.seconds) * 1000 + delay.nanos / 1e6;
    // The ProviderError of a status comes without its violations: they stand in BadRequest.
    this.fieldViolations = cause?.findDetails(BadRequestSchema)[0]?.fieldViolations ?? detail?.fieldViolations ?? [];
  }
}

/** Throws the error of an RPC as a HeadraceError. */
export function rethrow(reason: unknown): never {
  const isLate = reason instanceof DOMException && reason.name === "TimeoutError"; // of AbortSignal.timeout()
  const cause = isLate ? new ConnectError(reason.message, Code.DeadlineExceeded) : ConnectError.from(reason);
  const detail = cause.findDetails(ProviderErrorSchema)[0];
  throw new HeadraceError(cause.rawMessage, detail?.code ?? CODES[cause.code] ?? ErrorCode.UNKNOWN_ERROR, detail, cause);
}

/** The same transport, except that what its RPCs throw is a HeadraceError. */
export function typed(transport: Transport): Transport {
  async function* caught<T>(messages: AsyncIterable<T>): AsyncIterable<T> {
    try {
      yield* messages;
    } catch (error) {
      rethrow(error);
    }
  }
  return {
    unary: (...call) => transport.unary(...call).catch(rethrow),
    stream: (...call) => transport.stream(...call).then((response) => ({ ...response, message: caught(response.message) }), rethrow),
  };
}

/** Whether a stream broke, as against Headrace having ended it: a refusal has a detail. */
export function isLost(error: unknown): boolean {
  if (!(error instanceof HeadraceError && error.cause instanceof ConnectError)) return false;
  const { code } = error.cause; // libraries and proxies name a reset connection in their own ways
  return code === Code.Unavailable || (!error.detail && [Code.Aborted, Code.Canceled, Code.Internal].includes(code));
}
