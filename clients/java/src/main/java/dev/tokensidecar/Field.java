package dev.tokensidecar;

import java.io.Serializable;

/**
 * One field of a request that is no good.
 *
 * @param name the path in the contract, such as {@code audiences}
 * @param problem what is wrong with it
 */
public record Field(String name, String problem) implements Serializable {}
