package dev.tokensidecar;

import java.time.Instant;
import java.util.List;

/**
 * The ring after a rotation.
 *
 * @param keys all keys of the profile
 * @param activateTime when the successors start to issue
 * @param ringRevision that after the change; unsigned
 */
public record Rotation(List<Key> keys, Instant activateTime, long ringRevision) {}
