package dev.tokensidecar;

import java.time.Instant;
import java.util.List;

/**
 * The ring after a compromise.
 *
 * @param keys all keys of the profile
 * @param ringRevision that after the change; unsigned
 * @param effectiveTime when every sidecar obeys or answers {@link Reason#STATE_STALE}; this one does already
 */
public record KeyRevocation(List<Key> keys, long ringRevision, Instant effectiveTime) {}
