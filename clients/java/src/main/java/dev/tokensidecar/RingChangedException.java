package dev.tokensidecar;

/** Another change of the keys won. Look again, then decide. */
public final class RingChangedException extends TokenSidecarException {
    private static final long serialVersionUID = 1;

    RingChangedException(Answer answer) {
        super("ring changed", answer);
    }
}
