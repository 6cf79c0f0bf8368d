package dev.tokensidecar;

import java.time.Instant;
import java.util.List;
import java.util.Optional;

/**
 * What is public about a key.
 *
 * @param keyId {@code kid}
 * @param profile the one whose ring holds the key
 * @param use what the key is for
 * @param algorithm the key's one algorithm by its JWA name, such as {@code A256KW}
 * @param contentEncryption the JWA name of the content encryption; empty for signature keys
 * @param state that at the time of the answer
 * @param createTime when the key was made
 * @param activateTime when it starts to issue
 * @param retireTime when it stops issuing; nothing while it has no successor
 * @param destroyTime when it is destroyed; nothing while it has no successor
 * @param compromiseTime when it was declared compromised
 * @param ringRevision what {@link RotateRequest#withExpectedRingRevision} takes; unsigned
 */
public record Key(
        String keyId,
        String profile,
        KeyUse use,
        String algorithm,
        String contentEncryption,
        KeyState state,
        Instant createTime,
        Instant activateTime,
        Optional<Instant> retireTime,
        Optional<Instant> destroyTime,
        Optional<Instant> compromiseTime,
        long ringRevision) {

    private static Key of(dev.tokensidecar.v1.Key key) {
        return new Key(
                key.getKeyId(),
                key.getProfile(),
                KeyUse.of(key.getKeyUse()),
                key.getAlgorithm(),
                key.getContentEncryption(),
                KeyState.of(key.getState()),
                Messages.required(key.hasCreateTime(), key.getCreateTime(), "create_time"),
                Messages.required(key.hasActivateTime(), key.getActivateTime(), "activate_time"),
                Messages.optional(key.hasRetireTime(), key.getRetireTime()),
                Messages.optional(key.hasDestroyTime(), key.getDestroyTime()),
                Messages.optional(key.hasCompromiseTime(), key.getCompromiseTime()),
                key.getRingRevision());
    }

    static List<Key> all(List<dev.tokensidecar.v1.Key> keys) {
        return keys.stream().map(Key::of).toList();
    }
}
