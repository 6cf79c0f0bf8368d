package dev.tokensidecar;

/** This program may not do this here. Never retry. */
public final class DeniedException extends TokenSidecarException {
    private static final long serialVersionUID = 1;

    DeniedException(Answer answer) {
        super("denied", answer);
    }
}
