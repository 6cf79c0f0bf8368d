package dev.tokensidecar;

import com.google.protobuf.Any;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import dev.tokensidecar.v1.ItemError;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/** A call that did not end well. The subclass says what to do; this one has the particulars. */
public abstract sealed class TokenSidecarException extends RuntimeException
        permits CancelledException,
                DeniedException,
                FailedException,
                InvalidRequestException,
                RejectedException,
                RingChangedException,
                UnavailableException {

    private static final long serialVersionUID = 1;
    private static final Metadata.Key<String> REQUEST_ID =
            Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER);

    /** The gRPC status code. */
    private final Status.Code code;
    /** Why. */
    private final Reason reason;
    /** Null where there is none. */
    private final String requestId;

    TokenSidecarException(String what, Answer answer) {
        super(text(what, answer), answer.cause());
        this.code = answer.code();
        this.reason = answer.reason();
        this.requestId = answer.requestId();
    }

    private static String text(String what, Answer answer) {
        String reason = answer.reason() == Reason.UNSPECIFIED ? "" : " (" + answer.reason() + ")";
        String requestId = answer.requestId() == null ? "" : " [request id " + answer.requestId() + "]";
        return what + reason + ": " + answer.message() + requestId;
    }

    /**
     * The gRPC status code.
     *
     * @return the code
     */
    public Status.Code code() {
        return code;
    }

    /**
     * Why, in the contract's words.
     *
     * @return {@link Reason#UNSPECIFIED} where gRPC and not the sidecar's code answered, or a newer sidecar
     */
    public Reason reason() {
        return reason;
    }

    /**
     * Finds the call in the sidecar's log.
     *
     * @return nothing for an item of a batch, and where the sidecar's code did not answer
     */
    public Optional<String> requestId() {
        return Optional.ofNullable(requestId);
    }

    /** What is known of a failed call, before it is sorted. */
    record Answer(
            Status.Code code,
            Reason reason,
            String message,
            String requestId,
            List<Field> fields,
            Duration retryAfter,
            Throwable cause) {

        Answer(Status.Code code, String message) {
            this(code, Reason.UNSPECIFIED, message, null, List.of(), null, null);
        }
    }

    /** What a call ended with, in the thread and the gRPC context that made it. */
    static TokenSidecarException of(StatusRuntimeException failure) {
        boolean given =
                Thread.currentThread().isInterrupted() || Context.current().isCancelled();
        if (failure.getStatus().getCode() == Status.Code.CANCELLED && given) {
            return new CancelledException(
                    new Answer(Status.Code.CANCELLED, Reason.UNSPECIFIED, "given up", null, List.of(), null, failure));
        }
        return sorted(answer(failure));
    }

    private static Answer answer(StatusRuntimeException failure) {
        Status status = failure.getStatus();
        String message = Optional.ofNullable(status.getDescription()).orElse("");
        Status.Code code = status.getCode();
        if (Dial.isOfTransport(status)) {
            message = "the sidecar does not answer: " + Dial.problem(status);
            code = Status.Code.UNAVAILABLE;
        } else if (code == Status.Code.DEADLINE_EXCEEDED) {
            message = "no answer before the deadline";
        }
        Reason reason = Reason.UNSPECIFIED;
        List<Field> fields = new ArrayList<>();
        Duration retryAfter = null;
        com.google.rpc.Status details = StatusProto.fromThrowable(failure);
        for (Any detail : details == null ? List.<Any>of() : details.getDetailsList()) {
            try {
                if (detail.is(ErrorInfo.class)) {
                    ErrorInfo info = detail.unpack(ErrorInfo.class);
                    if (info.getDomain().equals("tokensidecar")) {
                        reason = Reason.named(info.getReason());
                    }
                } else if (detail.is(BadRequest.class)) {
                    for (BadRequest.FieldViolation violation :
                            detail.unpack(BadRequest.class).getFieldViolationsList()) {
                        fields.add(new Field(violation.getField(), violation.getDescription()));
                    }
                } else if (detail.is(RetryInfo.class)) {
                    com.google.protobuf.Duration delay =
                            detail.unpack(RetryInfo.class).getRetryDelay();
                    retryAfter = Duration.ofSeconds(delay.getSeconds(), delay.getNanos());
                }
            } catch (InvalidProtocolBufferException | ArithmeticException unreadable) {
                continue; // the code says what to do; a detail that cannot be read says nothing more
            }
        }
        Metadata trailers = Optional.ofNullable(failure.getTrailers()).orElseGet(Metadata::new);
        return new Answer(code, reason, message, trailers.get(REQUEST_ID), List.copyOf(fields), retryAfter, failure);
    }

    /** What a call of its own would have ended with. */
    static TokenSidecarException ofItem(ItemError item) {
        Status.Code code = Status.fromCodeValue(item.getCode()).getCode();
        if (code == Status.Code.OK) {
            return broken("an item of the batch failed with the code OK");
        }
        String prefix = item.getField() + ": ";
        String message = item.getMessage();
        String problem = message.startsWith(prefix) ? message.substring(prefix.length()) : message;
        List<Field> fields = item.getField().isEmpty() ? List.of() : List.of(new Field(item.getField(), problem));
        return sorted(new Answer(code, Reason.of(item.getReason()), message, null, fields, null, null));
    }

    /** By the code, as the contract says. */
    private static TokenSidecarException sorted(Answer answer) {
        return switch (answer.code()) {
            // The contract reserves it for the token in the request.
            case UNAUTHENTICATED -> new RejectedException(answer);
            case INVALID_ARGUMENT -> new InvalidRequestException(answer);
            case PERMISSION_DENIED -> new DeniedException(answer);
            case ABORTED -> new RingChangedException(answer);
            // Cancelled: by the sidecar as it ended.
            case UNAVAILABLE, DEADLINE_EXCEEDED, CANCELLED -> new UnavailableException(answer);
            // Without the reason: a message too large, which no later try makes smaller.
            case RESOURCE_EXHAUSTED ->
                answer.reason() == Reason.OVERLOADED ? new UnavailableException(answer) : new FailedException(answer);
            default -> new FailedException(answer);
        };
    }

    /** An error of the client itself, before anything was sent. */
    static InvalidRequestException refused(String field, String problem) {
        return new InvalidRequestException(new Answer(
                Status.Code.INVALID_ARGUMENT,
                Reason.REQUEST_INVALID,
                field + ": " + problem,
                null,
                List.of(new Field(field, problem)),
                null,
                null));
    }

    /** An answer that keeps to gRPC and not to the contract. */
    static FailedException broken(String problem) {
        return new FailedException(new Answer(Status.Code.INTERNAL, problem));
    }
}
