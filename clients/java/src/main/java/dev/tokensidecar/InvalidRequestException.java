package dev.tokensidecar;

import java.util.List;

/** The request is no good, or the address that was given. Never retry. */
public final class InvalidRequestException extends TokenSidecarException {
    private static final long serialVersionUID = 1;

    /** Those at fault. */
    private final Field[] fields;

    InvalidRequestException(Answer answer) {
        super("invalid request", answer);
        this.fields = answer.fields().toArray(Field[]::new);
    }

    /**
     * The fields at fault, by their names in the contract.
     *
     * @return empty where the sidecar names none
     */
    public List<Field> fields() {
        return List.of(fields);
    }
}
