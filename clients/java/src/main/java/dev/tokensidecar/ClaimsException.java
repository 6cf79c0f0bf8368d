package dev.tokensidecar;

/** Claims that are not as the program expects them. The message names the claim and never its value. */
public final class ClaimsException extends RuntimeException {
    private static final long serialVersionUID = 1;

    ClaimsException(String message) {
        super(message);
    }
}
