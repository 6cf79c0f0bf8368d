package dev.tokensidecar;

/** The caller gave the call up: its thread was interrupted (and is still marked so), or its gRPC context was cancelled. */
public final class CancelledException extends TokenSidecarException {
    private static final long serialVersionUID = 1;

    CancelledException(Answer answer) {
        super("cancelled", answer);
    }
}
