package dev.tokensidecar;

import java.time.Duration;

/**
 * How to connect, and how long the calls may take.
 *
 * @param address the sidecar: {@code unix:/path}, {@code unix:///path} or {@code host:port}; null: it is looked for. TCP
 *     carries tokens in the clear: stay on loopback
 * @param startTimeout how long to wait for a sidecar that is still starting; 10 s by default
 * @param validateTimeout the deadline of each {@code validate}; 250 ms by default. Until a first one has been answered it
 *     is at least 2 s
 * @param timeout the deadline of each other call; 1 s by default
 */
public record Options(String address, Duration startTimeout, Duration validateTimeout, Duration timeout) {

    /** The defaults. */
    public Options() {
        this(null, Duration.ofSeconds(10), Duration.ofMillis(250), Duration.ofSeconds(1));
    }

    /**
     * Names the sidecar: nothing else is tried then.
     *
     * @param address {@code unix:/path}, {@code unix:///path} or {@code host:port}
     * @return changed options
     */
    public Options withAddress(String address) {
        return new Options(address, startTimeout, validateTimeout, timeout);
    }

    /**
     * Sets how long to wait for a sidecar that is still starting.
     *
     * @param startTimeout how long
     * @return changed options
     */
    public Options withStartTimeout(Duration startTimeout) {
        return new Options(address, startTimeout, validateTimeout, timeout);
    }

    /**
     * Sets the deadline of each {@code validate}.
     *
     * @param validateTimeout how long it may take
     * @return changed options
     */
    public Options withValidateTimeout(Duration validateTimeout) {
        return new Options(address, startTimeout, validateTimeout, timeout);
    }

    /**
     * Sets the deadline of each other call.
     *
     * @param timeout how long it may take
     * @return changed options
     */
    public Options withTimeout(Duration timeout) {
        return new Options(address, startTimeout, validateTimeout, timeout);
    }
}
