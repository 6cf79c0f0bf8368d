package dev.tokensidecar;

import dev.tokensidecar.v1.AdminServiceGrpc;
import dev.tokensidecar.v1.ListKeysRequest;
import dev.tokensidecar.v1.ListKeysResponse;
import dev.tokensidecar.v1.RevokeKeysResponse;
import dev.tokensidecar.v1.RotateResponse;
import dev.tokensidecar.v1.TokenServiceGrpc;
import java.util.ArrayList;
import java.util.List;

/** Looks after keys. */
public final class Admin implements AutoCloseable {
    private static final int PAGE = 1000;

    private final Connection connection;
    private final Options options;

    private Admin(Connection connection, Options options) {
        this.connection = connection;
        this.options = options;
    }

    /**
     * {@link Client#connect()} for the admin plane: {@code TOKENSIDECAR_ADMIN_ADDRESS}, {@code admin/admin.sock} in the
     * same directories, {@code 127.0.0.1:8791}.
     *
     * @return a client
     */
    public static Admin connect() {
        return connect(new Options());
    }

    /**
     * {@link #connect()} with other options.
     *
     * @param options where to connect to, and how long to wait
     * @return a client
     */
    public static Admin connect(Options options) {
        return new Admin(Connection.open(Plane.ADMIN, options), options);
    }

    /**
     * Prepares successors. No token becomes invalid by it.
     *
     * @param request which keys get one
     * @return the ring afterwards
     * @throws RingChangedException where another rotation won or is pending
     */
    public Rotation rotate(RotateRequest request) {
        RotateResponse answer =
                connection.call(TokenServiceGrpc.getRotateMethod(), request.message(), options.timeout());
        return new Rotation(
                Key.all(answer.getKeysList()),
                Messages.required(answer.hasActivateTime(), answer.getActivateTime(), "activate_time"),
                answer.getRingRevision());
    }

    /**
     * The keys of a profile. The deadline holds for each page of 1,000.
     *
     * @param profile empty: of all profiles
     * @return the keys
     */
    public List<Key> listKeys(String profile) {
        List<Key> all = new ArrayList<>();
        ListKeysRequest.Builder request = ListKeysRequest.newBuilder()
                .setProfile(Messages.text("profile", profile))
                .setPageSize(PAGE);
        while (true) {
            ListKeysResponse answer =
                    connection.call(AdminServiceGrpc.getListKeysMethod(), request.build(), options.timeout());
            all.addAll(Key.all(answer.getKeysList()));
            String next = answer.getNextPageToken();
            if (next.isEmpty()) {
                return List.copyOf(all);
            }
            if (next.equals(request.getPageToken())) {
                throw TokenSidecarException.broken("the next page of keys is the same one");
            }
            request.setPageToken(next);
        }
    }

    /**
     * Declares keys compromised: their tokens are rejected from now on, and their successors issue at once. It is never
     * repeated by itself; to repeat it does no harm.
     *
     * @param request which keys
     * @return the ring afterwards
     */
    public KeyRevocation revokeKeys(RevokeKeysRequest request) {
        RevokeKeysResponse answer =
                connection.call(AdminServiceGrpc.getRevokeKeysMethod(), request.message(), options.timeout());
        return new KeyRevocation(
                Key.all(answer.getKeysList()),
                answer.getRingRevision(),
                Messages.required(answer.hasEffectiveTime(), answer.getEffectiveTime(), "effective_time"));
    }

    /** Ends the connection; calls under way fail. */
    @Override
    public void close() {
        connection.close();
    }
}
