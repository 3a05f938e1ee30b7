package dev.headrace;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import dev.headrace.v1.ErrorCode;
import dev.headrace.v1.FieldViolation;
import dev.headrace.v1.ProviderError;
import io.grpc.Status;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.List;
import java.util.Optional;

/** Why an RPC or a generation failed. The cause is the exception of the RPC, where there was one, with the gRPC code. */
public final class HeadraceException extends RuntimeException {
    private static final long serialVersionUID = 1;

    private final ErrorCode code;
    private final ProviderError detail;
    private final List<FieldViolation> fieldViolations;

    private HeadraceException(String message, ErrorCode code, ProviderError detail, List<FieldViolation> violations, Throwable cause) {
        super(message, cause);
        this.code = code;
        this.detail = detail;
        this.fieldViolations = List.copyOf(violations);
    }

    /** What the exception of a stub, such as a StatusRuntimeException, tells. */
    public static HeadraceException of(Throwable failure) {
        if (failure instanceof HeadraceException typed) {
            return typed;
        }
        var status = Status.fromThrowable(failure);
        ProviderError detail = null;
        List<FieldViolation> violations = List.of();
        var details = StatusProto.fromThrowable(failure);
        for (Any any : details == null ? List.<Any>of() : details.getDetailsList()) {
            try {
                if (any.is(ProviderError.class)) {
                    detail = any.unpack(ProviderError.class);
                } else if (any.is(BadRequest.class)) { // the ProviderError of a status comes without them
                    violations = any.unpack(BadRequest.class).getFieldViolationsList().stream().map(HeadraceException::violation).toList();
                }
            } catch (InvalidProtocolBufferException broken) {
                failure.addSuppressed(broken);
            }
        }
        var message = status.getDescription() == null ? status.getCode().toString() : status.getDescription();
        return new HeadraceException(message, detail == null ? codeOf(status) : detail.getCode(), detail, violations, failure);
    }

    static HeadraceException of(ProviderError detail) {
        return new HeadraceException(detail.getMessage(), detail.getCode(), detail, detail.getFieldViolationsList(), null);
    }

    static HeadraceException of(Status status, String message) {
        return of(status.withDescription(message).asRuntimeException());
    }

    /** What went wrong. */
    public ErrorCode code() {
        return code;
    }

    /** A finer word within the code, such as CONTEXT_LENGTH; empty where there is none. */
    public String subreason() {
        return detail == null ? "" : detail.getSubreason();
    }

    /** How long to wait before a new try, where somebody named a delay. */
    public Optional<Duration> retryAfter() {
        if (detail == null || !detail.getRateLimit().hasRetryAfter()) {
            return Optional.empty();
        }
        var delay = detail.getRateLimit().getRetryAfter();
        return Optional.of(Duration.ofSeconds(delay.getSeconds(), delay.getNanos()));
    }

    /** Which fields of the request are wrong. */
    public List<FieldViolation> fieldViolations() {
        return fieldViolations;
    }

    /** All that was told; empty where the connection failed. */
    public Optional<ProviderError> detail() {
        return Optional.ofNullable(detail);
    }

    /** Whether the stream broke, as against Headrace having ended it: a refusal has a detail. */
    boolean isLost() {
        return getCause() != null && switch (Status.fromThrowable(getCause()).getCode()) {
            case UNAVAILABLE -> true;
            case CANCELLED, INTERNAL, UNKNOWN -> detail == null; // other names of a reset connection
            default -> false;
        };
    }

    /** For statuses that come from the connection and not from Headrace. */
    private static ErrorCode codeOf(Status status) {
        return switch (status.getCode()) {
            case CANCELLED -> ErrorCode.ERROR_CODE_CANCELLED;
            case DEADLINE_EXCEEDED -> ErrorCode.ERROR_CODE_TIMEOUT;
            case UNAVAILABLE -> ErrorCode.ERROR_CODE_NETWORK_ERROR;
            default -> ErrorCode.ERROR_CODE_UNKNOWN_ERROR;
        };
    }

    private static FieldViolation violation(BadRequest.FieldViolation violation) {
        return FieldViolation.newBuilder().setField(violation.getField()).setDescription(violation.getDescription()).build();
    }
}
