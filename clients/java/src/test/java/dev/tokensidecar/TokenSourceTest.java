package dev.tokensidecar;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tokensidecar.v1.GetJwksRequest;
import dev.tokensidecar.v1.GetJwksResponse;
import dev.tokensidecar.v1.TokenServiceGrpc;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.InsecureServerCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpRequest;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.function.IntPredicate;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The token source over a fake that numbers its tokens, which live five minutes. */
@Timeout(60)
class TokenSourceTest {
    private static final Grant GRANT = Grant.of("orders", "billing");

    private final AtomicInteger calls = new AtomicInteger();
    private final AtomicLong time = new AtomicLong(Long.MAX_VALUE - 1_000); // it wraps, as nanoTime may
    private final Semaphore answers = new Semaphore(1_000_000);
    private Fake fake;
    private Client client;

    private TokenSource source(IntPredicate fails) throws IOException {
        fake = new Fake().on("Issue", (dev.tokensidecar.v1.IssueRequest request) -> {
            int number = calls.incrementAndGet();
            answers.acquireUninterruptibly();
            if (fails.test(number)) {
                throw Fake.failure(Status.Code.UNAVAILABLE, Reason.STATE_STALE, "not now");
            }
            return Fake.issued(number + ":" + request.getProfile() + ":" + request.getSubject() + ":"
                    + request.getAudiencesList() + ":" + request.getScopesList());
        });
        client = fake.client(new Options().withTimeout(Duration.ofSeconds(30)));
        return new TokenSource(client, time::get);
    }

    @AfterEach
    void end() throws IOException {
        client.close();
        fake.close();
    }

    private void pass(int seconds) {
        time.addAndGet(TimeUnit.SECONDS.toNanos(seconds));
    }

    /** No call is answered from now on, until some are released. */
    private void hold() {
        answers.drainPermits();
    }

    private void untilCalled(int times) throws InterruptedException {
        while (calls.get() < times) {
            Thread.sleep(1);
        }
    }

    @Test
    void tokenIsKeptForFourFifthsOfItsLife() throws IOException {
        TokenSource source = source(number -> false);
        assertEquals("1::orders:[billing]:[]", source.token(GRANT).token());
        pass(239);
        assertTrue(source.token(GRANT).token().startsWith("1:"));
        pass(2);
        assertTrue(source.token(GRANT).token().startsWith("2:"));
        assertEquals(2, calls.get());
    }

    @Test
    void eachGrantHasATokenOfItsOwn() throws IOException {
        TokenSource source = source(number -> false);
        List<Grant> grants = List.of(
                GRANT,
                GRANT.withProfile("p"),
                GRANT.withScopes("read"),
                Grant.of("orders", "mail"),
                Grant.of("web", "billing"));
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < grants.size(); i++) {
                assertTrue(source.token(grants.get(i)).token().startsWith(i + 1 + ":"));
            }
        }
        assertEquals(5, calls.get());
    }

    @Test
    void allWhoWantTheSameShareOneCallAndItsFailureWhichIsNotKept() throws Exception {
        TokenSource source = source(number -> number == 1);
        hold();
        List<CompletableFuture<IssuedToken>> wanted = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            wanted.add(source.tokenAsync(GRANT));
        }
        untilCalled(1);
        answers.release(1_000);
        for (CompletableFuture<IssuedToken> each : wanted) {
            ExecutionException error = assertThrows(ExecutionException.class, each::get);
            assertInstanceOf(UnavailableException.class, error.getCause());
        }
        assertEquals(1, calls.get());
        assertTrue(source.token(GRANT).token().startsWith("2:"));
    }

    @Test
    void whoGivesUpDoesNotEndTheCallOfTheOthers() throws Exception {
        TokenSource source = source(number -> false);
        hold();
        CompletableFuture<Throwable> ended = new CompletableFuture<>();
        Context.CancellableContext context = Context.current().withCancellation();
        Thread first = new Thread(context.wrap(
                (Runnable) () -> ended.complete(assertThrows(CancelledException.class, () -> source.token(GRANT)))));
        first.start();
        untilCalled(1);
        CompletableFuture<IssuedToken> second = source.tokenAsync(GRANT);
        CompletableFuture<IssuedToken> third = source.tokenAsync(GRANT);
        first.interrupt();
        ended.get(5, TimeUnit.SECONDS);
        context.cancel(null);
        third.cancel(true);
        answers.release(1_000);
        assertTrue(second.get(5, TimeUnit.SECONDS).token().startsWith("1:"));
    }

    @Test
    void tokenThatStillLivesServesWhileTheSidecarDoesNot() throws IOException {
        TokenSource source = source(number -> number > 1);
        source.token(GRANT);
        pass(241);
        assertTrue(source.token(GRANT).token().startsWith("1:"));
        pass(60);
        assertThrows(UnavailableException.class, () -> source.token(GRANT));
        assertEquals(3, calls.get());
    }

    @Test
    void nobodyWaitsForARenewalWhileTheOldTokenLives() throws Exception {
        TokenSource source = source(number -> false);
        source.token(GRANT);
        pass(241);
        hold();
        CompletableFuture<IssuedToken> renewal = source.tokenAsync(GRANT);
        untilCalled(2);
        assertTrue(source.token(GRANT).token().startsWith("1:"));
        assertFalse(renewal.isDone());
        answers.release(1_000);
        assertTrue(renewal.get().token().startsWith("2:"));
    }

    @Test
    void forgottenTokenIsIssuedAnew() throws IOException {
        TokenSource source = source(number -> false);
        source.token(GRANT);
        source.forget(GRANT);
        assertTrue(source.token(GRANT).token().startsWith("2:"));
    }

    @Test
    void ofTooManyGrantsThoseThatExpireSoonestAreForgotten() throws IOException {
        TokenSource source = source(number -> false);
        source.token(GRANT);
        pass(1);
        for (int i = 0; i < 1_000; i++) {
            source.token(Grant.of("s" + i, "billing"));
        }
        assertEquals(1_001, calls.get());
        source.token(Grant.of("s999", "billing"));
        assertEquals(1_001, calls.get());
        source.token(GRANT);
        assertEquals(1_002, calls.get());
    }

    @Test
    void httpRequestCarriesTheToken() throws IOException {
        TokenSource source = source(number -> false);
        HttpRequest request = source.authorize(
                        HttpRequest.newBuilder(URI.create("http://billing/")).header("Authorization", "Basic mine"),
                        GRANT)
                .build();
        assertEquals(List.of("Bearer 1::orders:[billing]:[]"), request.headers().allValues("Authorization"));
    }

    @Test
    void grpcCallCarriesTheTokenAndIsNotSentWithoutOne() throws Exception {
        TokenSource source = source(number -> number > 1);
        List<String> seen = new CopyOnWriteArrayList<>();
        Server billing = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(new TokenServiceGrpc.TokenServiceImplBase() {
                    @Override
                    public void getJwks(GetJwksRequest request, StreamObserver<GetJwksResponse> answer) {
                        answer.onNext(GetJwksResponse.getDefaultInstance());
                        answer.onCompleted();
                    }
                })
                .intercept(new ServerInterceptor() {
                    @Override
                    public <Q, A> ServerCall.Listener<Q> interceptCall(
                            ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
                        seen.add(headers.get(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER)));
                        return next.startCall(call, headers);
                    }
                })
                .build()
                .start();
        ManagedChannel channel = Grpc.newChannelBuilder(
                        "127.0.0.1:" + billing.getPort(), InsecureChannelCredentials.create())
                .build();
        try {
            TokenServiceGrpc.TokenServiceBlockingStub stub =
                    TokenServiceGrpc.newBlockingStub(channel).withCallCredentials(source.credentials(GRANT));
            stub.getJwks(GetJwksRequest.getDefaultInstance());
            source.forget(GRANT);
            StatusRuntimeException error =
                    assertThrows(StatusRuntimeException.class, () -> stub.getJwks(GetJwksRequest.getDefaultInstance()));
            assertEquals(Status.Code.UNAVAILABLE, error.getStatus().getCode());
            assertEquals(List.of("Bearer 1::orders:[billing]:[]"), seen);
        } finally {
            channel.shutdownNow();
            billing.shutdownNow();
        }
    }
}
