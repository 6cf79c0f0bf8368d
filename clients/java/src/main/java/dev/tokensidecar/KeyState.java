package dev.tokensidecar;

/** Follows from a key's times (NIST SP 800-57 Part 1). */
public enum KeyState {
    /** Another one, of a newer sidecar. */
    UNKNOWN,
    /** Opens, does not issue yet. */
    PENDING,
    /** Issues and opens. */
    ACTIVE,
    /** Opens until the last token made with it has expired. */
    RETIRING,
    /** In no live ring and no memory. */
    DESTROYED,
    /** Neither issues nor opens. */
    COMPROMISED;

    static KeyState of(dev.tokensidecar.v1.KeyState value) {
        for (KeyState known : values()) {
            if (value.name().equals("KEY_STATE_" + known.name())) {
                return known;
            }
        }
        return UNKNOWN;
    }
}
