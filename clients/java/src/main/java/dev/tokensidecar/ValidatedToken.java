package dev.tokensidecar;

import dev.tokensidecar.v1.ValidateResponse;
import java.time.Instant;
import java.util.List;

/**
 * What a good token says.
 *
 * @param profile the kind of token that it is
 * @param issuer {@code iss}
 * @param subject {@code sub}
 * @param audiences {@code aud}
 * @param clientId {@code client_id}
 * @param scopes {@code scope}
 * @param tokenId {@code jti}
 * @param issueTime {@code iat}
 * @param expireTime {@code exp}
 * @param keyId {@code kid} of the outermost layer
 * @param claims every claim: the very text that was signed or sealed, and a view of it
 * @param ringRevision that of the keys that the answer rests on; unsigned
 * @param revocationRevision that of the revocations that the answer rests on; 0 while the sidecar holds none; unsigned
 */
public record ValidatedToken(
        String profile,
        String issuer,
        String subject,
        List<String> audiences,
        String clientId,
        List<String> scopes,
        String tokenId,
        Instant issueTime,
        Instant expireTime,
        String keyId,
        Claims claims,
        long ringRevision,
        long revocationRevision) {

    static ValidatedToken of(ValidateResponse answer) {
        return new ValidatedToken(
                answer.getProfile(),
                answer.getIssuer(),
                answer.getSubject(),
                List.copyOf(answer.getAudiencesList()),
                answer.getClientId(),
                List.copyOf(answer.getScopesList()),
                answer.getTokenId(),
                Messages.required(answer.hasIssueTime(), answer.getIssueTime(), "issue_time"),
                Messages.required(answer.hasExpireTime(), answer.getExpireTime(), "expire_time"),
                answer.getKeyId(),
                Claims.of(answer.getClaimsJson()),
                answer.getRingRevision(),
                answer.getRevocationRevision());
    }

    /** Leaves out the subject and the claims. */
    @Override
    public String toString() {
        return "ValidatedToken[profile=" + profile + ", tokenId=" + tokenId + ", keyId=" + keyId + ", expireTime="
                + expireTime + "]";
    }
}
