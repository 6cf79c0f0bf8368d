package dev.tokensidecar;

/** Every other failure: not in this version of the sidecar, its fault, or an answer that breaks the contract. */
public final class FailedException extends TokenSidecarException {
    private static final long serialVersionUID = 1;

    FailedException(Answer answer) {
        super("failed", answer);
    }
}
