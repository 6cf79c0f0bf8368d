package dev.tokensidecar;

import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import java.util.ArrayList;
import java.util.List;

/**
 * A gRPC interceptor that lets only good tokens through to a service, and ends every other call itself:
 * {@code UNAUTHENTICATED} for a token that is missing or no good, {@code PERMISSION_DENIED} for one without a required
 * scope, {@code UNAVAILABLE} where nobody can judge now, {@code INTERNAL} where this program may not or got it wrong.
 *
 * <p>Behind it, {@link #caller} has the token and its claims. It waits for the sidecar on the server's executor, as
 * handlers do: not for a server with {@code directExecutor()}.
 */
public final class ProtectInterceptor implements ServerInterceptor {
    private static final Context.Key<Authorized<?>> CALLER = Context.key("dev.tokensidecar.caller");
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final Protect<?> protect;

    /**
     * An interceptor for the services that it is put before.
     *
     * @param protect what is demanded
     */
    public ProtectInterceptor(Protect<?> protect) {
        this.protect = protect;
    }

    /**
     * Who makes the call that is served here.
     *
     * @param <C> what the claims are read into
     * @param claims the same, as a class: {@code Claims.class} without {@link Protect#withClaims}
     * @return what the token says
     * @throws IllegalStateException where the service is not protected, or its claims are of another type
     */
    public static <C> Authorized<C> caller(Class<C> claims) {
        Authorized<?> caller = CALLER.get();
        if (caller == null) {
            throw new IllegalStateException("this service is not protected");
        }
        return caller.as(claims);
    }

    @Override
    public <Q, A> ServerCall.Listener<Q> interceptCall(
            ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
        Authorized<?> caller;
        try {
            caller = protect.judge(authorization(headers));
        } catch (Protect.TurnedDown no) {
            call.close(status(no), new Metadata());
            return new ServerCall.Listener<>() {};
        }
        return Contexts.interceptCall(Context.current().withValue(CALLER, caller), call, headers, next);
    }

    private static List<String> authorization(Metadata headers) {
        List<String> values = new ArrayList<>();
        Iterable<String> found = headers.getAll(AUTHORIZATION);
        if (found != null) {
            found.forEach(values::add);
        }
        return values;
    }

    /** The cause stays in this process: for a log of an interceptor further out. */
    private static Status status(Protect.TurnedDown no) {
        Status status = switch (no.kind()) {
            case NO_TOKEN -> Status.UNAUTHENTICATED.withDescription("a bearer token is required");
            case MALFORMED -> Status.UNAUTHENTICATED.withDescription("the authorization is malformed");
            case NO_GOOD ->
                Status.UNAUTHENTICATED.withDescription(
                        no.reason() == Reason.UNSPECIFIED
                                ? "the token is no good"
                                : no.reason().name());
            case WITHOUT_SCOPE -> Status.PERMISSION_DENIED.withDescription(Reason.TOKEN_SCOPE_MISSING.name());
            case UNKNOWN_NOW -> Status.UNAVAILABLE.withDescription("the token cannot be judged now");
            case OUR_FAULT -> Status.INTERNAL.withDescription("the token cannot be judged");
        };
        return status.withCause(no.getCause());
    }
}
