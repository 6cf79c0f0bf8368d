package dev.tokensidecar;

import dev.tokensidecar.v1.BatchIssueRequest;
import dev.tokensidecar.v1.BatchValidateRequest;
import dev.tokensidecar.v1.IssueResult;
import dev.tokensidecar.v1.RefreshResponse;
import dev.tokensidecar.v1.TokenServiceGrpc;
import dev.tokensidecar.v1.ValidateResult;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.function.Function;

/**
 * Issues and validates tokens. It reconnects by itself: make one and keep it.
 *
 * <p>A call ends with an answer or a {@link TokenSidecarException}, at its deadline at the latest. To interrupt the
 * thread cancels the call: {@link CancelledException}.
 */
public final class Client implements AutoCloseable {
    // The first one waits for what comes later for nothing: classes to load, lazy imports, cold caches.
    private static final Duration FIRST_VALIDATE = Duration.ofSeconds(2);

    private final Connection connection;
    private final Options options;
    private volatile boolean validated; // a first Validate was answered

    private Client(Connection connection, Options options) {
        this.connection = connection;
        this.options = options;
    }

    /**
     * Finds the sidecar, waits until it accepts calls and connects.
     *
     * <p>It goes to {@code TOKENSIDECAR_ADDRESS} if that is set; else to the first that answers of {@code app/app.sock} in
     * {@code /run/tokensidecar}, {@code $XDG_RUNTIME_DIR/tokensidecar} and {@code /tmp/tokensidecar-$UID} (in
     * {@code TOKENSIDECAR_RUNTIME_DIR} alone, if that is set; only where socket and directories belong to root or this
     * user), and {@code 127.0.0.1:8790}.
     *
     * @return a client
     * @throws UnavailableException after 10 s without a sidecar; the message lists every address that was tried
     * @throws InvalidRequestException where the variable holds no address
     */
    public static Client connect() {
        return connect(new Options());
    }

    /**
     * {@link #connect()} with other options.
     *
     * @param options where to connect to, and how long to wait
     * @return a client
     */
    public static Client connect(Options options) {
        return new Client(Connection.open(Plane.APP, options), options);
    }

    /**
     * Makes a token. It is never repeated by itself, unless the sidecar cannot have seen it.
     *
     * @param request what it shall say
     * @return the token
     */
    public IssuedToken issue(IssueRequest request) {
        return IssuedToken.of(connection.call(TokenServiceGrpc.getIssueMethod(), request.message(), options.timeout()));
    }

    /**
     * {@link #issue} for those who may not block. The future ends with the same exceptions; to cancel it cancels the call.
     *
     * @param request what the token shall say
     * @return the token, once it is there
     */
    public CompletableFuture<IssuedToken> issueAsync(IssueRequest request) {
        return connection.callAsync(
                TokenServiceGrpc.getIssueMethod(), request.message(), options.timeout(), IssuedToken::of);
    }

    /**
     * Opens and checks a token. Where this returns, the token is good for one of the audiences, now.
     *
     * @param request the token, and what is demanded of it
     * @return what it says
     * @throws RejectedException for a token that is no good
     * @throws UnavailableException where nobody could judge
     */
    public ValidatedToken validate(ValidateRequest request) {
        try {
            ValidatedToken token = ValidatedToken.of(
                    connection.call(TokenServiceGrpc.getValidateMethod(), request.message(), validateTimeout()));
            validated = true;
            return token;
        } catch (RejectedException judged) {
            validated = true;
            throw judged;
        }
    }

    /**
     * {@link #validate} for those who may not block. The future ends with the same exceptions; to cancel it cancels the
     * call.
     *
     * @param request the token, and what is demanded of it
     * @return what it says, once it is known
     */
    public CompletableFuture<ValidatedToken> validateAsync(ValidateRequest request) {
        CompletableFuture<ValidatedToken> token = connection.callAsync(
                TokenServiceGrpc.getValidateMethod(), request.message(), validateTimeout(), ValidatedToken::of);
        token.whenComplete((good, failure) -> {
            if (good != null || failure instanceof RejectedException) {
                validated = true;
            }
        });
        return token;
    }

    private Duration validateTimeout() {
        Duration deadline = options.validateTimeout();
        return validated || deadline.compareTo(FIRST_VALIDATE) > 0 ? deadline : FIRST_VALIDATE;
    }

    /**
     * {@link #issue} for up to 1,000 requests at once.
     *
     * @param requests what the tokens shall say
     * @return a result for each, in order
     * @throws TokenSidecarException where the call as a whole failed
     */
    public List<Result<IssuedToken>> issueAll(List<IssueRequest> requests) {
        BatchIssueRequest.Builder message = BatchIssueRequest.newBuilder();
        requests.forEach(request -> message.addRequests(request.message()));
        return results(
                connection
                        .call(TokenServiceGrpc.getBatchIssueMethod(), message.build(), options.timeout())
                        .getResultsList(),
                requests.size(),
                Client::result);
    }

    private static Result<IssuedToken> result(IssueResult item) {
        return switch (item.getResultCase()) {
            case RESPONSE -> Result.of(IssuedToken.of(item.getResponse()));
            case ERROR -> Result.failed(TokenSidecarException.ofItem(item.getError()));
            case RESULT_NOT_SET -> throw withoutResult();
        };
    }

    /**
     * {@link #validate} for up to 1,000 tokens at once.
     *
     * @param requests the tokens, and what is demanded of each
     * @return a result for each, in order
     * @throws TokenSidecarException where the call as a whole failed
     */
    public List<Result<ValidatedToken>> validateAll(List<ValidateRequest> requests) {
        BatchValidateRequest.Builder message = BatchValidateRequest.newBuilder();
        requests.forEach(request -> message.addRequests(request.message()));
        return results(
                connection
                        .call(TokenServiceGrpc.getBatchValidateMethod(), message.build(), options.timeout())
                        .getResultsList(),
                requests.size(),
                Client::result);
    }

    private static Result<ValidatedToken> result(ValidateResult item) {
        return switch (item.getResultCase()) {
            case RESPONSE -> Result.of(ValidatedToken.of(item.getResponse()));
            case ERROR -> Result.failed(TokenSidecarException.ofItem(item.getError()));
            case RESULT_NOT_SET -> throw withoutResult();
        };
    }

    private static <I, T> List<Result<T>> results(List<I> items, int count, Function<I, Result<T>> result) {
        if (items.size() != count) {
            throw TokenSidecarException.broken("the batch has another number of results than of requests");
        }
        List<Result<T>> results = new ArrayList<>(count);
        for (I item : items) {
            try {
                results.add(result.apply(item));
            } catch (FailedException broken) { // its neighbours are as good as without it
                results.add(Result.failed(broken));
            }
        }
        return List.copyOf(results);
    }

    private static FailedException withoutResult() {
        return TokenSidecarException.broken("an item of the batch has no result");
    }

    /**
     * Trades a refresh token for a new pair. It is never repeated by itself; after a lost reply, the caller may repeat it
     * within the grace (10 s), as long as the new refresh token is unspent.
     *
     * @param request the refresh token
     * @return access token and refresh token
     * @throws RejectedException for a refresh token that is no good; with {@link Reason#REFRESH_REUSED} its family is
     *     revoked
     */
    public IssuedToken refresh(RefreshRequest request) {
        RefreshResponse answer =
                connection.call(TokenServiceGrpc.getRefreshMethod(), request.message(), options.timeout());
        if (!answer.hasTokens()) {
            throw TokenSidecarException.broken("the answer has no tokens");
        }
        return IssuedToken.of(answer.getTokens());
    }

    /**
     * Ends a token: logout. Also one that is unknown or ended already (RFC 7009). It is never repeated by itself; to
     * repeat it does no harm.
     *
     * @param request the token
     * @return when it holds
     */
    public Revocation revoke(RevokeRequest request) {
        return Revocation.of(connection.call(TokenServiceGrpc.getRevokeMethod(), request.message(), options.timeout()));
    }

    /** Ends the connection; calls under way fail. */
    @Override
    public void close() {
        connection.close();
    }
}
