package dev.tokensidecar;

import dev.tokensidecar.v1.IssueResponse;
import java.time.Instant;
import java.util.List;
import java.util.Optional;

/**
 * A token, and what was granted.
 *
 * @param token the encrypted JWT; whoever has it may use it
 * @param tokenId {@code jti}
 * @param keyId {@code kid} of the outermost layer
 * @param issueTime {@code iat}
 * @param expireTime {@code exp}
 * @param audiences as granted
 * @param scopes as granted
 * @param refreshToken only where it was asked for
 * @param refreshExpireTime {@code exp} of the refresh token
 */
public record IssuedToken(
        String token,
        String tokenId,
        String keyId,
        Instant issueTime,
        Instant expireTime,
        List<String> audiences,
        List<String> scopes,
        Optional<String> refreshToken,
        Optional<Instant> refreshExpireTime) {

    static IssuedToken of(IssueResponse answer) {
        String refreshToken = answer.getRefreshToken();
        return new IssuedToken(
                answer.getToken(),
                answer.getTokenId(),
                answer.getKeyId(),
                Messages.required(answer.hasIssueTime(), answer.getIssueTime(), "issue_time"),
                Messages.required(answer.hasExpireTime(), answer.getExpireTime(), "expire_time"),
                List.copyOf(answer.getAudiencesList()),
                List.copyOf(answer.getScopesList()),
                refreshToken.isEmpty() ? Optional.empty() : Optional.of(refreshToken),
                Messages.optional(answer.hasRefreshExpireTime(), answer.getRefreshExpireTime()));
    }

    /** Leaves out the tokens. */
    @Override
    public String toString() {
        return "IssuedToken[tokenId=" + tokenId + ", keyId=" + keyId + ", expireTime=" + expireTime + "]";
    }
}
