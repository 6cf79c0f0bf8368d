package dev.tokensidecar;

import com.google.protobuf.Timestamp;
import java.nio.charset.StandardCharsets;
import java.time.DateTimeException;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Optional;
import java.util.UUID;

/** Java's own values in the contract's messages, and back. */
final class Messages {
    private static final Duration LONGEST = Duration.ofSeconds(315_576_000_000L); // of google.protobuf.Duration

    private Messages() {}

    /** Text that UTF-8 holds: a lone surrogate would be sent as a question mark. */
    static String text(String field, String value) {
        if (!StandardCharsets.UTF_8.newEncoder().canEncode(value)) {
            throw TokenSidecarException.refused(field, "has half of a surrogate pair");
        }
        return value;
    }

    static List<String> texts(String field, List<String> values) {
        values.forEach(value -> text(field, value));
        return values;
    }

    /** What the contract cannot express is sent as the longest that it can: the sidecar refuses both. */
    static com.google.protobuf.Duration duration(Duration value) {
        Duration sent = value.compareTo(LONGEST) > 0 ? LONGEST : value;
        sent = sent.compareTo(LONGEST.negated()) < 0 ? LONGEST.negated() : sent;
        // Of a negative one, the contract wants both parts negative.
        long seconds = sent.getSeconds();
        int nanos = sent.getNano();
        if (seconds < 0 && nanos > 0) {
            seconds += 1;
            nanos -= 1_000_000_000;
        }
        return com.google.protobuf.Duration.newBuilder()
                .setSeconds(seconds)
                .setNanos(nanos)
                .build();
    }

    /** A time that the contract always fills. */
    static Instant required(boolean present, Timestamp time, String name) {
        return optional(present, time).orElseThrow(() -> TokenSidecarException.broken("the answer has no " + name));
    }

    static Optional<Instant> optional(boolean present, Timestamp time) {
        try {
            return present ? Optional.of(Instant.ofEpochSecond(time.getSeconds(), time.getNanos())) : Optional.empty();
        } catch (DateTimeException | ArithmeticException inexpressible) {
            throw TokenSidecarException.broken("the answer has a time that Java cannot express");
        }
    }

    /** A request id of 122 random bits where the caller has none. */
    static String orFresh(String requestId) {
        return requestId.isEmpty() ? UUID.randomUUID().toString() : requestId;
    }
}
