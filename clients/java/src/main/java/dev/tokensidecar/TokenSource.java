package dev.tokensidecar;

import io.grpc.CallCredentials;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.Status;
import java.net.http.HttpRequest;
import java.time.Duration;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionException;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executor;
import java.util.function.LongSupplier;

/**
 * Issues tokens for outgoing calls and keeps each for 80 % of its life. Whoever wants the same at the same time shares
 * one call, and its failure too.
 */
public final class TokenSource {
    private static final int RENEWED_AFTER_PERCENT = 80;
    private static final Duration ROUNDING = Duration.ofSeconds(1); // iat and exp are whole seconds
    private static final Duration LONGEST_KEPT = Duration.ofDays(365); // so that no reckoning overflows
    private static final int MOST_GRANTS = 1000; // of more, those that expire soonest are forgotten
    private static final Metadata.Key<String> AUTHORIZATION =
            Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final Client client;
    private final LongSupplier nanoTime;
    private final Map<Grant, Slot> slots = new HashMap<>(); // guarded by itself, and so is what is in it

    /** What is known of one grant. */
    private static final class Slot {
        Kept kept; // null: none yet
        CompletableFuture<IssuedToken> call; // null: none under way
    }

    /** A token, and times of {@link #nanoTime}. */
    private record Kept(IssuedToken token, long renew, long expire) {}

    /**
     * Keeps nothing yet.
     *
     * @param client who issues
     */
    public TokenSource(Client client) {
        this(client, System::nanoTime);
    }

    TokenSource(Client client, LongSupplier nanoTime) {
        this.client = client;
        this.nanoTime = nanoTime;
    }

    /**
     * A token that is good for at least a fifth of its life; for less only where the sidecar does not answer, or while
     * somebody else renews it.
     *
     * @param grant what it shall say
     * @return the token
     * @throws TokenSidecarException as {@link Client#issue}; an interrupt ends the waiting, and not a call that is shared
     */
    public IssuedToken token(Grant grant) {
        try {
            return tokenAsync(grant).get();
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
            throw new CancelledException(new TokenSidecarException.Answer(
                    Status.Code.CANCELLED, Reason.UNSPECIFIED, "given up", null, List.of(), null, interrupted));
        } catch (ExecutionException failed) {
            throw failure(failed);
        }
    }

    /**
     * {@link #token} for those who may not block.
     *
     * @param grant what the token shall say
     * @return the token, once it is there
     */
    public CompletableFuture<IssuedToken> tokenAsync(Grant grant) {
        IssueRequest request = grant.request();
        Slot slot;
        CompletableFuture<IssuedToken> call;
        synchronized (slots) {
            slot = slot(grant);
            Kept kept = slot.kept;
            if (kept != null && nanoTime.getAsLong() - kept.renew() < 0) {
                return CompletableFuture.completedFuture(kept.token());
            }
            if (slot.call != null) {
                return alive(kept) // while somebody renews it
                        ? CompletableFuture.completedFuture(kept.token())
                        : slot.call.copy();
            }
            call = new CompletableFuture<>();
            slot.call = call;
        }
        long asked = nanoTime.getAsLong();
        try {
            // Not in the context of whoever came first: its end is not that of the others.
            Context.ROOT.run(() ->
                    client.issueAsync(request).whenComplete((token, failure) -> end(slot, asked, token, failure)));
        } catch (RuntimeException failure) {
            end(slot, asked, null, failure);
        }
        return call.copy();
    }

    /** The life is reckoned by the sidecar's own times, from before the call: this machine's clock may jump. */
    private void end(Slot slot, long asked, IssuedToken issued, Throwable failure) {
        CompletableFuture<IssuedToken> call;
        IssuedToken token = issued;
        synchronized (slots) {
            call = slot.call;
            slot.call = null;
            if (token != null) {
                Duration life = Duration.between(token.issueTime(), token.expireTime());
                life = life.compareTo(LONGEST_KEPT) < 0 ? life : LONGEST_KEPT;
                slot.kept = new Kept(
                        token,
                        asked + life.toNanos() / 100 * RENEWED_AFTER_PERCENT,
                        asked + life.minus(ROUNDING).toNanos());
            } else if (failure instanceof UnavailableException && alive(slot.kept)) {
                token = slot.kept.token();
            }
        }
        if (token != null) {
            call.complete(token);
        } else {
            call.completeExceptionally(failure);
        }
    }

    private boolean alive(Kept kept) {
        return kept != null && nanoTime.getAsLong() - kept.expire() < 0;
    }

    private Slot slot(Grant grant) {
        Slot known = slots.get(grant);
        if (known != null) {
            return known;
        }
        if (slots.size() >= MOST_GRANTS) {
            long now = nanoTime.getAsLong();
            slots.entrySet().stream()
                    .min(Comparator.comparingLong(entry -> entry.getValue().kept == null
                            ? Long.MAX_VALUE
                            : entry.getValue().kept.expire() - now))
                    .map(Map.Entry::getKey)
                    .ifPresent(slots::remove);
        }
        Slot made = new Slot();
        slots.put(grant, made);
        return made;
    }

    /**
     * Forgets the token of a grant: for one that was turned down.
     *
     * @param grant what it said
     */
    public void forget(Grant grant) {
        synchronized (slots) {
            slots.remove(grant);
        }
    }

    /**
     * Adds a bearer token to an HTTP request.
     *
     * @param request the request, to be built; an {@code Authorization} that it has is replaced
     * @param grant what the token shall say
     * @return the same request
     * @throws TokenSidecarException as {@link Client#issue}: without a token nothing is to be sent
     */
    public HttpRequest.Builder authorize(HttpRequest.Builder request, Grant grant) {
        return request.setHeader("Authorization", "Bearer " + token(grant).token());
    }

    /**
     * Adds a bearer token to each call of a gRPC stub: {@code stub.withCallCredentials(…)}. Without a token nothing is
     * sent, and the call ends with the code that the sidecar answered. The channel is to be one that nobody listens to.
     *
     * @param grant what the token shall say
     * @return for any number of calls
     */
    public CallCredentials credentials(Grant grant) {
        return new CallCredentials() {
            @Override
            public void applyRequestMetadata(RequestInfo info, Executor executor, MetadataApplier applier) {
                CompletableFuture<IssuedToken> wanted;
                try {
                    wanted = tokenAsync(grant);
                } catch (TokenSidecarException refused) {
                    wanted = CompletableFuture.failedFuture(refused);
                }
                wanted.whenComplete((token, failure) -> {
                    if (token != null) {
                        Metadata headers = new Metadata();
                        headers.put(AUTHORIZATION, "Bearer " + token.token());
                        applier.apply(headers);
                    } else {
                        TokenSidecarException why = failure(failure);
                        applier.fail(Status.fromCode(why.code())
                                .withDescription("no token: " + why.getMessage())
                                .withCause(why));
                    }
                });
            }
        };
    }

    /** Without what futures put around it. */
    private static TokenSidecarException failure(Throwable failure) {
        Throwable cause = failure;
        while ((cause instanceof CompletionException || cause instanceof ExecutionException)
                && cause.getCause() != null) {
            cause = cause.getCause();
        }
        return cause instanceof TokenSidecarException why ? why : TokenSidecarException.broken(String.valueOf(cause));
    }
}
