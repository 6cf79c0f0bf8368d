package dev.tokensidecar;

import dev.tokensidecar.v1.RevokeResponse;
import java.time.Instant;

/**
 * When a revocation holds.
 *
 * @param revocationRevision for {@link ValidateRequest#withMinRevocationRevision}
 * @param effectiveTime by then every sidecar obeys or answers {@link Reason#STATE_STALE}
 */
public record Revocation(long revocationRevision, Instant effectiveTime) {
    static Revocation of(RevokeResponse answer) {
        return new Revocation(
                answer.getRevocationRevision(),
                Messages.required(answer.hasEffectiveTime(), answer.getEffectiveTime(), "effective_time"));
    }
}
