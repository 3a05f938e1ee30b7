package dev.headrace;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import dev.headrace.v1.*;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.*;

/** Why an RPC or a generation failed. The cause is the exception of the RPC, where there was one, with the gRPC code. */
public final class HeadraceException extends RuntimeException {
    private static final long serialVersionUID = 1;
    private final ProviderError detail; // without a code where the connection failed

    HeadraceException(ProviderError detail, Throwable cause) {
        super(cause == null ? detail.getMessage() : cause.getMessage(), cause);
        this.detail = detail;
    }

    /** What the exception of a stub, such as a StatusRuntimeException, tells. */
    public static HeadraceException of(Throwable failure) {
        var detail = ProviderError.newBuilder();
        var status = StatusProto.fromStatusAndTrailers(Status.fromThrowable(failure), Status.trailersFromThrowable(failure));
        try {
            for (var any : status.getDetailsList()) {
                if (any.is(ProviderError.class)) {
                    detail.mergeFrom(any.unpack(ProviderError.class));
                } else if (any.is(BadRequest.class)) { // the ProviderError of a status comes without them
                    any.unpack(BadRequest.class).getFieldViolationsList().forEach(wrong ->
                            detail.addFieldViolationsBuilder().setField(wrong.getField()).setDescription(wrong.getDescription()));
                }
            }
        } catch (InvalidProtocolBufferException broken) {
            failure.addSuppressed(broken);
        }
        return new HeadraceException(detail.build(), failure);
    }

    /** What went wrong. */
    public ErrorCode code() {
        return detail().map(ProviderError::getCode).orElseGet(() -> switch (Status.fromThrowable(getCause()).getCode()) {
            case CANCELLED -> ErrorCode.ERROR_CODE_CANCELLED;
            case DEADLINE_EXCEEDED -> ErrorCode.ERROR_CODE_TIMEOUT;
            case UNAVAILABLE -> ErrorCode.ERROR_CODE_NETWORK_ERROR;
            default -> ErrorCode.ERROR_CODE_UNKNOWN_ERROR;
        });
    }

    /** How long to wait before a new try, where somebody named a delay. */
    public Optional<Duration> retryAfter() {
        var limit = Optional.of(detail.getRateLimit()).filter(RateLimitInfo::hasRetryAfter);
        return limit.map(info -> Duration.ofSeconds(info.getRetryAfter().getSeconds(), info.getRetryAfter().getNanos()));
    }

    /** Which fields of the request are wrong. */
    public List<FieldViolation> fieldViolations() { return detail.getFieldViolationsList(); }

    /** All that was told, `subreason` too, a finer word within the code; empty where the connection failed. */
    public Optional<ProviderError> detail() { return Optional.of(detail).filter(told -> told.getCodeValue() != 0); }
}
