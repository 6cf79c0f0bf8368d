package dev.tokensidecar;

/** The sidecar judged the token, and it is no good; {@link #reason()} says why. Never retry; answer 401. */
public final class RejectedException extends TokenSidecarException {
    private static final long serialVersionUID = 1;

    RejectedException(Answer answer) {
        super("token rejected", answer);
    }
}
