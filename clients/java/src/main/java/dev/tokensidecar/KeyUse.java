package dev.tokensidecar;

/** What a key does in its profile. */
public enum KeyUse {
    /** Another one, of a newer sidecar. */
    UNKNOWN,
    /** The outer layer. */
    ENCRYPTION,
    /** The inner layer. */
    SIGNATURE,
    /** Refresh tokens. */
    REFRESH;

    static KeyUse of(dev.tokensidecar.v1.KeyUse value) {
        for (KeyUse known : values()) {
            if (value.name().equals("KEY_USE_" + known.name())) {
                return known;
            }
        }
        return UNKNOWN;
    }
}
