package dev.tokensidecar;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.RetryInfo;
import dev.tokensidecar.v1.BatchIssueResponse;
import dev.tokensidecar.v1.BatchValidateRequest;
import dev.tokensidecar.v1.BatchValidateResponse;
import dev.tokensidecar.v1.ErrorReason;
import dev.tokensidecar.v1.IssueResult;
import dev.tokensidecar.v1.ItemError;
import dev.tokensidecar.v1.ListKeysRequest;
import dev.tokensidecar.v1.ListKeysResponse;
import dev.tokensidecar.v1.RefreshResponse;
import dev.tokensidecar.v1.RevokeKeysResponse;
import dev.tokensidecar.v1.RevokeResponse;
import dev.tokensidecar.v1.RotateResponse;
import dev.tokensidecar.v1.ValidateResponse;
import dev.tokensidecar.v1.ValidateResult;
import io.grpc.Context;
import io.grpc.Status;
import java.io.IOException;
import java.time.Duration;
import java.time.Instant;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The clients against a fake. */
@Timeout(60)
class ClientTest {
    private static final ValidateRequest ASK = ValidateRequest.of("t", "orders");
    private static final IssueRequest WANT = IssueRequest.of("ada", "orders");

    private static dev.tokensidecar.v1.IssueRequest sent(Fake fake, int number) {
        return (dev.tokensidecar.v1.IssueRequest) fake.seen.get(number).request();
    }

    @Test
    void issueSendsWhatWasAskedFor() throws IOException {
        try (Fake fake = new Fake().on("Issue", request -> Fake.issued("a.b.c"));
                Client client = fake.client()) {
            IssuedToken token = client.issue(WANT.withProfile("p")
                    .withTtl(Duration.ofMillis(1500))
                    .withClientId("web")
                    .withScopes("read")
                    .withClaims(Map.of("big", Long.MAX_VALUE)));
            dev.tokensidecar.v1.IssueRequest want = dev.tokensidecar.v1.IssueRequest.newBuilder()
                    .setProfile("p")
                    .setSubject("ada")
                    .addAudiences("orders")
                    .setClientId("web")
                    .addScopes("read")
                    .setTtl(com.google.protobuf.Duration.newBuilder()
                            .setSeconds(1)
                            .setNanos(500_000_000))
                    .setClaimsJson("{\"big\":9223372036854775807}")
                    .build();
            assertEquals(want, sent(fake, 0));
            assertEquals("a.b.c", token.token());
            assertEquals(Instant.ofEpochSecond(1_000), token.issueTime());
            assertEquals(Instant.ofEpochSecond(1_300), token.expireTime());
            assertEquals(Optional.empty(), token.refreshToken());
        }
    }

    @Test
    void claimsJsonIsSentByteForByteAndWhatIsNotAskedForStaysUnset() throws IOException {
        try (Fake fake = new Fake().on("Issue", request -> Fake.issued("a.b.c"));
                Client client = fake.client()) {
            String text = "{ \"b\" : 1.0,\n\"a\":\"\\u0041<\" }";
            client.issue(WANT.withClaimsJson(text));
            client.issue(WANT);
            client.issue(WANT.withTtl(Duration.ofSeconds(Long.MAX_VALUE)).withRefreshToken());
            client.issue(WANT.withTtl(Duration.ofMillis(-1500)));
            assertEquals(text, sent(fake, 0).getClaimsJson());
            assertFalse(sent(fake, 1).hasClaimsJson() || sent(fake, 1).hasTtl());
            assertTrue(sent(fake, 2).getWithRefreshToken());
            assertEquals(
                    315_576_000_000L, sent(fake, 2).getTtl().getSeconds(), "refused by the sidecar, not shortened");
            assertEquals(-1, sent(fake, 3).getTtl().getSeconds());
            assertEquals(-500_000_000, sent(fake, 3).getTtl().getNanos());
        }
    }

    @Test
    void halfASurrogatePairIsRefusedAndNotReplaced() {
        List<InvalidRequestException> errors = List.of(
                assertThrows(InvalidRequestException.class, () -> IssueRequest.of("\ud83e", "orders")),
                assertThrows(InvalidRequestException.class, () -> WANT.withClaims(Map.of("a", "\udd8a"))),
                assertThrows(InvalidRequestException.class, () -> ValidateRequest.of("t", "\ud83e")));
        assertEquals(
                List.of("subject", "claims_json", "audiences"),
                errors.stream().map(error -> error.fields().get(0).name()).toList());
    }

    @Test
    void rejectedTokenHasTheReasonAndTheRequestId() throws IOException {
        try (Fake fake = new Fake().on("Validate", request -> {
                    throw Fake.failure(Status.Code.UNAUTHENTICATED, Reason.TOKEN_EXPIRED, "the token has expired");
                });
                Client client = fake.client()) {
            RejectedException error = assertThrows(RejectedException.class, () -> client.validate(ASK));
            assertEquals(Reason.TOKEN_EXPIRED, error.reason());
            assertEquals(Status.Code.UNAUTHENTICATED, error.code());
            assertEquals(Optional.of("r1"), error.requestId());
            assertEquals("token rejected (TOKEN_EXPIRED): the token has expired [request id r1]", error.getMessage());
        }
    }

    @Test
    void unauthenticatedWithoutDetailsIsARejectedToken() throws IOException {
        try (Fake fake = new Fake().on("Validate", request -> {
                    throw Status.UNAUTHENTICATED.withDescription("no").asRuntimeException();
                });
                Client client = fake.client()) {
            RejectedException error = assertThrows(RejectedException.class, () -> client.validate(ASK));
            assertEquals(Reason.UNSPECIFIED, error.reason());
            assertEquals(Optional.empty(), error.requestId());
        }
    }

    @Test
    void reasonsUsesAndStatesAreThoseOfTheContract() {
        Stream<ErrorReason> reasons = Stream.of(ErrorReason.values())
                .filter(reason -> reason != ErrorReason.UNRECOGNIZED && reason != ErrorReason.ERROR_REASON_UNSPECIFIED);
        assertEquals(
                reasons.map(Enum::name).toList(),
                Stream.of(Reason.values()).skip(1).map(Enum::name).toList());
        assertEquals(Reason.UNSPECIFIED, Reason.of(ErrorReason.UNRECOGNIZED));
        assertEquals(Reason.UNSPECIFIED, Reason.named("A_NEWER_ONE"));
        for (dev.tokensidecar.v1.KeyUse use : dev.tokensidecar.v1.KeyUse.values()) {
            boolean known = use != dev.tokensidecar.v1.KeyUse.UNRECOGNIZED && use.getNumber() != 0;
            assertEquals(known, KeyUse.of(use) != KeyUse.UNKNOWN, use.name());
        }
        for (dev.tokensidecar.v1.KeyState state : dev.tokensidecar.v1.KeyState.values()) {
            boolean known = state != dev.tokensidecar.v1.KeyState.UNRECOGNIZED && state.getNumber() != 0;
            assertEquals(known, KeyState.of(state) != KeyState.UNKNOWN, state.name());
        }
    }

    @ParameterizedTest
    @CsvSource({
        "INVALID_ARGUMENT, REQUEST_INVALID, InvalidRequest",
        "PERMISSION_DENIED, CALLER_DENIED, Denied",
        "PERMISSION_DENIED, CALLER_UNIDENTIFIED, Denied",
        "ABORTED, RING_CHANGED, RingChanged",
        "UNAVAILABLE, STATE_STALE, Unavailable",
        "UNAVAILABLE, SUBJECT_REVOKED, Unavailable",
        "RESOURCE_EXHAUSTED, OVERLOADED, Unavailable",
        "RESOURCE_EXHAUSTED, UNSPECIFIED, Failed",
        "DEADLINE_EXCEEDED, UNSPECIFIED, Unavailable",
        "CANCELLED, UNSPECIFIED, Unavailable",
        "UNIMPLEMENTED, NOT_IMPLEMENTED, Failed",
        "INTERNAL, INTERNAL, Failed",
        "UNKNOWN, UNSPECIFIED, Failed",
    })
    void otherFailuresAreToldApart(Status.Code code, Reason reason, String kind) throws IOException {
        try (Fake fake = new Fake().on("Issue", request -> {
                    throw Fake.failure(code, reason, "words");
                });
                Client client = fake.client()) {
            TokenSidecarException error = assertThrows(TokenSidecarException.class, () -> client.issue(WANT));
            assertEquals(kind + "Exception", error.getClass().getSimpleName());
            assertEquals(code, error.code());
            assertEquals(reason, error.reason());
        }
    }

    @Test
    void invalidRequestNamesItsFieldsAndOverloadSaysWhen() throws IOException {
        BadRequest bad = BadRequest.newBuilder()
                .addFieldViolations(BadRequest.FieldViolation.newBuilder()
                        .setField("audiences")
                        .setDescription("is required"))
                .build();
        RetryInfo retry = RetryInfo.newBuilder()
                .setRetryDelay(com.google.protobuf.Duration.newBuilder().setSeconds(2))
                .build();
        try (Fake fake = new Fake()
                        .on("Issue", request -> {
                            throw Fake.failure(Status.Code.INVALID_ARGUMENT, Reason.REQUEST_INVALID, "no", bad);
                        })
                        .on("Validate", request -> {
                            throw Fake.failure(Status.Code.RESOURCE_EXHAUSTED, Reason.OVERLOADED, "no", retry);
                        });
                Client client = fake.client()) {
            InvalidRequestException invalid = assertThrows(InvalidRequestException.class, () -> client.issue(WANT));
            assertEquals(List.of(new Field("audiences", "is required")), invalid.fields());
            UnavailableException busy = assertThrows(UnavailableException.class, () -> client.validate(ASK));
            assertEquals(Optional.of(Duration.ofSeconds(2)), busy.retryAfter());
        }
    }

    private static Fake answeringAll() {
        return new Fake()
                .on("Issue", request -> Fake.issued("t"))
                .on("Validate", request -> {
                    throw Fake.failure(Status.Code.UNAUTHENTICATED, Reason.TOKEN_INVALID, "no");
                })
                .on("BatchIssue", request -> BatchIssueResponse.getDefaultInstance())
                .on("BatchValidate", request -> BatchValidateResponse.getDefaultInstance())
                .on(
                        "Refresh",
                        request -> RefreshResponse.newBuilder()
                                .setTokens(Fake.issued("t"))
                                .build())
                .on(
                        "Revoke",
                        request -> RevokeResponse.newBuilder()
                                .setEffectiveTime(Fake.time(1))
                                .build())
                .on(
                        "Rotate",
                        request -> RotateResponse.newBuilder()
                                .setActivateTime(Fake.time(1))
                                .build())
                .on("ListKeys", request -> ListKeysResponse.getDefaultInstance())
                .on(
                        "RevokeKeys",
                        request -> RevokeKeysResponse.newBuilder()
                                .setEffectiveTime(Fake.time(1))
                                .build());
    }

    @Test
    void everyCallHasADeadline() throws Exception {
        try (Fake fake = answeringAll();
                Client client = fake.client();
                Admin admin = fake.admin()) {
            assertThrows(RejectedException.class, () -> client.validate(ASK)); // an answer all the same
            assertThrows(RejectedException.class, () -> client.validate(ASK));
            assertThrows(
                    ExecutionException.class, () -> client.validateAsync(ASK).get());
            client.issue(WANT);
            client.issueAsync(WANT).get();
            client.issueAll(List.of());
            client.validateAll(List.of());
            client.refresh(RefreshRequest.of("r"));
            client.revoke(RevokeRequest.of("t"));
            admin.rotate(RotateRequest.of(""));
            admin.listKeys("");
            admin.revokeKeys(RevokeKeysRequest.of("default", "k"));
            assertEquals(12, fake.seen.size());
            for (int i = 0; i < 12; i++) {
                long left = fake.seen.get(i).millisLeft();
                long least = i == 0 ? 1_000 : i < 3 ? 0 : 250;
                long most = i == 0 ? 2_000 : i < 3 ? 250 : 1_000;
                assertTrue(least <= left && left <= most, fake.seen.get(i).method() + " has " + left);
            }
        }
    }

    @Test
    void deadlinesAreSettable() throws IOException {
        Options options =
                new Options().withValidateTimeout(Duration.ofMinutes(60)).withTimeout(Duration.ofMinutes(120));
        try (Fake fake = answeringAll();
                Client client = fake.client(options)) {
            assertThrows(RejectedException.class, () -> client.validate(ASK));
            client.issue(WANT);
            assertEquals(59, fake.seen.get(0).millisLeft() / 60_000);
            assertEquals(119, fake.seen.get(1).millisLeft() / 60_000);
        }
    }

    /** An answer that comes once the test is over, to so many calls. */
    private static final class Hanging implements Function<Message, Message>, AutoCloseable {
        private final CountDownLatch over = new CountDownLatch(1);
        final CountDownLatch begun;
        final CountDownLatch cancelled;

        Hanging(int calls) {
            begun = new CountDownLatch(calls);
            cancelled = new CountDownLatch(calls);
        }

        @Override
        public Message apply(Message request) {
            Context.current().addListener(context -> cancelled.countDown(), Runnable::run);
            begun.countDown();
            try {
                assertTrue(over.await(30, TimeUnit.SECONDS), "the test is not over");
            } catch (InterruptedException impossible) {
                throw new AssertionError(impossible);
            }
            throw Status.INTERNAL.asRuntimeException();
        }

        @Override
        public void close() {
            over.countDown();
        }
    }

    @Test
    void passedDeadlineIsUnavailable() throws IOException {
        try (Hanging hanging = new Hanging(1);
                Fake fake = new Fake().on("Issue", hanging);
                Client client = fake.client(new Options().withTimeout(Duration.ofMillis(50)))) {
            UnavailableException error = assertThrows(UnavailableException.class, () -> client.issue(WANT));
            assertEquals(Status.Code.DEADLINE_EXCEEDED, error.code());
        }
    }

    @Test
    void interruptCancelsTheCallInTheSidecarToo() throws Exception {
        try (Hanging hanging = new Hanging(1);
                Fake fake = new Fake().on("Issue", hanging);
                Client client = fake.client(new Options().withTimeout(Duration.ofSeconds(60)))) {
            CompletableFuture<Boolean> marked = new CompletableFuture<>();
            Thread caller = new Thread(() -> {
                assertThrows(CancelledException.class, () -> client.issue(WANT));
                marked.complete(Thread.currentThread().isInterrupted());
            });
            caller.start();
            assertTrue(hanging.begun.await(5, TimeUnit.SECONDS));
            caller.interrupt();
            assertTrue(marked.get(5, TimeUnit.SECONDS), "the thread is still marked as interrupted");
            assertTrue(hanging.cancelled.await(5, TimeUnit.SECONDS));
        }
    }

    @Test
    void cancelledFutureAndCancelledContextCancelTheCall() throws Exception {
        try (Hanging hanging = new Hanging(2);
                Fake fake = new Fake().on("Issue", hanging);
                Client client = fake.client(new Options().withTimeout(Duration.ofSeconds(60)))) {
            CompletableFuture<IssuedToken> token = client.issueAsync(WANT);
            Context.CancellableContext context = Context.current().withCancellation();
            CompletableFuture<IssuedToken> other = context.call(() -> client.issueAsync(WANT));
            assertTrue(hanging.begun.await(5, TimeUnit.SECONDS));
            token.cancel(true);
            context.cancel(null);
            ExecutionException error = assertThrows(ExecutionException.class, () -> other.get(5, TimeUnit.SECONDS));
            assertInstanceOf(CancelledException.class, error.getCause());
            assertTrue(hanging.cancelled.await(5, TimeUnit.SECONDS));
        }
    }

    @Test
    void requestIdIsFreshPerCallAndKeptOverRetries() throws IOException {
        AtomicInteger calls = new AtomicInteger();
        List<String> ids = new java.util.concurrent.CopyOnWriteArrayList<>();
        try (Fake fake = new Fake()
                        .on("Validate", (dev.tokensidecar.v1.ValidateRequest request) -> {
                            ids.add(request.getRequestId());
                            return everyOtherTime(calls, Fake.validated("ada", "{}"));
                        })
                        .on("Rotate", (dev.tokensidecar.v1.RotateRequest request) -> {
                            ids.add(request.getRequestId());
                            return everyOtherTime(
                                    calls,
                                    RotateResponse.newBuilder()
                                            .setActivateTime(Fake.time(1))
                                            .build());
                        });
                Client client = fake.client();
                Admin admin = fake.admin()) {
            for (int i = 0; i < 2; i++) {
                client.validate(ASK);
                admin.rotate(RotateRequest.of("default"));
            }
            client.validate(ASK.withRequestId("mine"));
        }
        assertEquals(10, ids.size());
        for (int i = 0; i < 10; i += 2) {
            assertEquals(ids.get(i), ids.get(i + 1));
        }
        assertEquals("mine", ids.get(8));
        assertEquals(4, new HashSet<>(ids.subList(0, 8)).size());
        assertTrue(ids.stream().limit(8).allMatch(id -> id.length() == 36));
    }

    private static Message everyOtherTime(AtomicInteger calls, Message answer) {
        if (calls.incrementAndGet() % 2 == 1) {
            throw Fake.failure(Status.Code.UNAVAILABLE, Reason.STORE_UNAVAILABLE, "not now");
        }
        return answer;
    }

    @Test
    void whatIsNotIdempotentIsNotRepeatedAndTheRestThreeTimes() throws IOException {
        Fake down = new Fake();
        List<String> once = List.of("Issue", "BatchIssue", "Refresh", "Revoke", "RevokeKeys");
        List<String> thrice = List.of("Validate", "BatchValidate", "Rotate", "ListKeys");
        Stream.concat(once.stream(), thrice.stream())
                .forEach(method -> down.on(method, request -> {
                    throw Fake.failure(Status.Code.UNAVAILABLE, Reason.STATE_STALE, "not just now");
                }));
        Options options = new Options().withTimeout(Duration.ofSeconds(20)).withValidateTimeout(Duration.ofSeconds(20));
        try (down;
                Client client = down.client(options);
                Admin admin = down.admin()) {
            List<org.junit.jupiter.api.function.Executable> calls = List.of(
                    () -> client.issue(WANT),
                    () -> client.issueAll(List.of(WANT)),
                    () -> client.refresh(RefreshRequest.of("r")),
                    () -> client.revoke(RevokeRequest.of("t")),
                    () -> admin.revokeKeys(RevokeKeysRequest.of("default", "k")),
                    () -> client.validate(ASK),
                    () -> client.validateAll(List.of(ASK)),
                    () -> admin.rotate(RotateRequest.of("default")),
                    () -> admin.listKeys(""));
            for (org.junit.jupiter.api.function.Executable call : calls) {
                assertThrows(UnavailableException.class, call);
            }
            once.forEach(method -> assertEquals(1, down.count(method), method));
            thrice.forEach(method -> assertEquals(3, down.count(method), method));
        }
    }

    @Test
    void batchHasAResultPerItem() throws IOException {
        try (Fake fake = new Fake()
                        .on("BatchValidate", (BatchValidateRequest request) -> {
                            BatchValidateResponse.Builder answer = BatchValidateResponse.newBuilder();
                            for (dev.tokensidecar.v1.ValidateRequest item : request.getRequestsList()) {
                                if (item.getToken().equals("good")) {
                                    answer.addResults(ValidateResult.newBuilder()
                                            .setResponse(Fake.validated(item.getRequestId(), "{}")));
                                } else {
                                    answer.addResults(ValidateResult.newBuilder()
                                            .setError(ItemError.newBuilder()
                                                    .setCode(Status.Code.UNAUTHENTICATED.value())
                                                    .setReason(ErrorReason.TOKEN_REVOKED)
                                                    .setMessage("revoked")));
                                }
                            }
                            return answer.build();
                        })
                        .on(
                                "BatchIssue",
                                request -> BatchIssueResponse.newBuilder()
                                        .addResults(IssueResult.newBuilder().setResponse(Fake.issued("a.b.c")))
                                        .addResults(IssueResult.newBuilder()
                                                .setError(ItemError.newBuilder()
                                                        .setCode(Status.Code.INVALID_ARGUMENT.value())
                                                        .setReason(ErrorReason.REQUEST_INVALID)
                                                        .setMessage("audiences: is required")
                                                        .setField("audiences")))
                                        .build());
                Client client = fake.client()) {
            List<Result<ValidatedToken>> judged = client.validateAll(Stream.of("good", "bad", "good")
                    .map(token -> ValidateRequest.of(token, "orders"))
                    .toList());
            assertEquals(3, judged.size());
            assertEquals(Optional.empty(), judged.get(0).error());
            RejectedException rejected =
                    assertThrows(RejectedException.class, () -> judged.get(1).get());
            assertEquals(Reason.TOKEN_REVOKED, rejected.reason());
            assertNotEquals(judged.get(0).get().subject(), judged.get(2).get().subject(), "a request id of its own");

            List<Result<IssuedToken>> issued = client.issueAll(List.of(WANT, WANT));
            assertEquals("a.b.c", issued.get(0).get().token());
            InvalidRequestException invalid = assertInstanceOf(
                    InvalidRequestException.class, issued.get(1).error().get());
            assertEquals(List.of(new Field("audiences", "is required")), invalid.fields());
        }
    }

    @Test
    void answerThatBreaksTheContractIsNoSuccess() throws IOException {
        List<BatchValidateResponse> broken = List.of(
                BatchValidateResponse.getDefaultInstance(),
                BatchValidateResponse.newBuilder()
                        .addResults(ValidateResult.getDefaultInstance())
                        .build(),
                BatchValidateResponse.newBuilder()
                        .addResults(ValidateResult.newBuilder().setError(ItemError.getDefaultInstance()))
                        .build());
        for (BatchValidateResponse answer : broken) {
            try (Fake fake = new Fake().on("BatchValidate", request -> answer);
                    Client client = fake.client()) {
                assertThrows(
                        FailedException.class,
                        () -> client.validateAll(List.of(ASK)).get(0).get());
            }
        }
        try (Fake fake = new Fake()
                        .on("Validate", request -> ValidateResponse.getDefaultInstance())
                        .on("Refresh", request -> RefreshResponse.getDefaultInstance());
                Client client = fake.client()) {
            assertThrows(FailedException.class, () -> client.validate(ASK), "without exp");
            ExecutionException error = assertThrows(
                    ExecutionException.class, () -> client.validateAsync(ASK).get());
            assertInstanceOf(FailedException.class, error.getCause());
            assertThrows(FailedException.class, () -> client.refresh(RefreshRequest.of("r")));
        }
    }

    @Test
    void refreshGivesANewPairAndRevokeSaysWhen() throws IOException {
        try (Fake fake = new Fake()
                        .on(
                                "Refresh",
                                request -> RefreshResponse.newBuilder()
                                        .setTokens(Fake.issued("t2").toBuilder()
                                                .setRefreshToken("r2")
                                                .setRefreshExpireTime(Fake.time(9_000)))
                                        .build())
                        .on(
                                "Revoke",
                                request -> RevokeResponse.newBuilder()
                                        .setRevocationRevision(7)
                                        .setEffectiveTime(Fake.time(2_000))
                                        .build());
                Client client = fake.client()) {
            IssuedToken pair = client.refresh(
                    RefreshRequest.of("r1").withAudiences("orders").withScopes("read"));
            assertEquals("t2", pair.token());
            assertEquals(Optional.of("r2"), pair.refreshToken());
            assertEquals(Optional.of(Instant.ofEpochSecond(9_000)), pair.refreshExpireTime());
            Revocation revocation = client.revoke(RevokeRequest.of("t2").withReason("logout"));
            assertEquals(new Revocation(7, Instant.ofEpochSecond(2_000)), revocation);
            assertEquals(
                    List.of(
                            dev.tokensidecar.v1.RefreshRequest.newBuilder()
                                    .setRefreshToken("r1")
                                    .addAudiences("orders")
                                    .addScopes("read")
                                    .build(),
                            dev.tokensidecar.v1.RevokeRequest.newBuilder()
                                    .setToken("t2")
                                    .setReason("logout")
                                    .build()),
                    fake.seen.stream().map(Fake.Seen::request).toList());
        }
    }

    @Test
    void reusedRefreshTokenIsRejectedWithTheReason() throws IOException {
        try (Fake fake = new Fake().on("Refresh", request -> {
                    throw Fake.failure(Status.Code.UNAUTHENTICATED, Reason.REFRESH_REUSED, "revoked");
                });
                Client client = fake.client()) {
            RejectedException error =
                    assertThrows(RejectedException.class, () -> client.refresh(RefreshRequest.of("r1")));
            assertEquals(Reason.REFRESH_REUSED, error.reason());
        }
    }

    private static dev.tokensidecar.v1.Key key(String keyId) {
        return dev.tokensidecar.v1.Key.newBuilder()
                .setKeyId(keyId)
                .setKeyUse(dev.tokensidecar.v1.KeyUse.KEY_USE_SIGNATURE)
                .setCreateTime(Fake.time(1))
                .setActivateTime(Fake.time(2))
                .build();
    }

    @Test
    void adminListsAllPagesAndRotatesAndRevokesByName() throws IOException {
        try (Fake fake = new Fake()
                        .on("ListKeys", (ListKeysRequest request) -> {
                            boolean first = request.getPageToken().isEmpty();
                            boolean endless = request.getProfile().equals("endless");
                            return ListKeysResponse.newBuilder()
                                    .addKeys(key(first ? "k1" : "k2"))
                                    .setNextPageToken(endless ? "again" : first ? "2" : "")
                                    .build();
                        })
                        .on(
                                "Rotate",
                                request -> RotateResponse.newBuilder()
                                        .addKeys(key("k3"))
                                        .setActivateTime(Fake.time(5))
                                        .setRingRevision(4)
                                        .build())
                        .on(
                                "RevokeKeys",
                                request -> RevokeKeysResponse.newBuilder()
                                        .setEffectiveTime(Fake.time(3))
                                        .setRingRevision(7)
                                        .build());
                Admin admin = fake.admin()) {
            List<Key> keys = admin.listKeys("");
            assertEquals(List.of("k1", "k2"), keys.stream().map(Key::keyId).toList());
            assertEquals(KeyUse.SIGNATURE, keys.get(0).use());
            assertEquals(Optional.empty(), keys.get(0).retireTime());
            assertThrows(FailedException.class, () -> admin.listKeys("endless"));
            fake.seen.clear();

            Rotation rotation = admin.rotate(RotateRequest.of("p")
                    .withKeyUse(KeyUse.SIGNATURE)
                    .withExpectedRingRevision(3)
                    .withRequestId("r")
                    .withReason("due"));
            assertEquals(4, rotation.ringRevision());
            assertEquals("k3", rotation.keys().get(0).keyId());
            KeyRevocation revocation =
                    admin.revokeKeys(RevokeKeysRequest.of("p", "k1").withReason("lost"));
            assertEquals(7, revocation.ringRevision());
            assertEquals(Instant.ofEpochSecond(3), revocation.effectiveTime());
            assertEquals(
                    List.of(
                            dev.tokensidecar.v1.RotateRequest.newBuilder()
                                    .setProfile("p")
                                    .setKeyUse(dev.tokensidecar.v1.KeyUse.KEY_USE_SIGNATURE)
                                    .setExpectedRingRevision(3)
                                    .setRequestId("r")
                                    .setReason("due")
                                    .build(),
                            dev.tokensidecar.v1.RevokeKeysRequest.newBuilder()
                                    .setProfile("p")
                                    .addKeyIds("k1")
                                    .setReason("lost")
                                    .build()),
                    fake.seen.stream().map(Fake.Seen::request).toList());
        }
    }

    @Test
    void tokensAndClaimsAreNotPrinted() throws IOException {
        String canary = "canary";
        try (Fake fake = new Fake()
                        .on("Validate", request -> Fake.validated(canary, "{\"a\":\"canary\"}"))
                        .on(
                                "Issue",
                                request -> Fake.issued(canary).toBuilder()
                                        .setRefreshToken(canary)
                                        .build());
                Client client = fake.client()) {
            ValidatedToken token = client.validate(ASK);
            IssuedToken issued = client.issue(WANT);
            assertEquals(canary, token.claims().text("a"));
            assertEquals(canary, issued.token());
            List<Object> all = List.of(
                    token,
                    token.claims(),
                    issued,
                    Result.of(issued),
                    new Authorized<>(token, canary),
                    Grant.of(canary, "orders"),
                    IssueRequest.of(canary, "orders").withClaims(Map.of("a", canary)),
                    ValidateRequest.of(canary, "orders"),
                    RefreshRequest.of(canary),
                    RevokeRequest.of(canary));
            for (Object each : all) {
                assertFalse(each.toString().contains(canary), each.getClass().getName());
            }
        }
    }
}
