package dev.tokensidecar;

import java.util.Optional;

/**
 * One item's end in a batch.
 *
 * @param <T> {@link IssuedToken} or {@link ValidatedToken}
 */
public final class Result<T> {
    private final T token;
    private final TokenSidecarException error;

    private Result(T token, TokenSidecarException error) {
        this.token = token;
        this.error = error;
    }

    static <T> Result<T> of(T token) {
        return new Result<>(token, null);
    }

    static <T> Result<T> failed(TokenSidecarException error) {
        return new Result<>(null, error);
    }

    /**
     * The token.
     *
     * @return the token, never null
     * @throws TokenSidecarException what a call of its own would have ended with, where there is no token
     */
    public T get() {
        if (error != null) {
            throw error;
        }
        return token;
    }

    /**
     * Why there is no token.
     *
     * @return nothing where there is one
     */
    public Optional<TokenSidecarException> error() {
        return Optional.ofNullable(error);
    }

    @Override
    public String toString() {
        return "Result[" + (error == null ? token : error) + "]";
    }
}
