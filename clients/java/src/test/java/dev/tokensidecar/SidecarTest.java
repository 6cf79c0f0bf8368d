package dev.tokensidecar;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.grpc.Status;
import java.math.BigInteger;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledIfEnvironmentVariable;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * Against a running sidecar on its embedded defaults, at addresses as {@link Options#withAddress} takes them. These rotate
 * and revoke its keys.
 */
@EnabledIfEnvironmentVariable(named = "TOKENSIDECAR_TEST_SOCKET", matches = ".+")
@Timeout(120)
class SidecarTest {
    /** The app plane's two addresses. */
    enum Over {
        SOCKET,
        TCP;

        private Client client;

        Options options() {
            return new Options().withAddress(System.getenv("TOKENSIDECAR_TEST_" + name()));
        }

        synchronized Client client() {
            if (client == null) {
                client = Client.connect(options());
            }
            return client;
        }
    }

    private static final IssueRequest WANT = IssueRequest.of("user-17", "orders");

    private static ValidateRequest ask(IssuedToken token) {
        return ValidateRequest.of(token.token(), "orders");
    }

    @AfterAll
    static void end() {
        Stream.of(Over.values()).forEach(over -> over.client().close());
    }

    @ParameterizedTest
    @EnumSource
    void sidecarIssuesATokenThatItValidates(Over over) {
        BigInteger most = new BigInteger("18446744073709551615");
        IssuedToken issued = over.client()
                .issue(IssueRequest.of("user-17", "orders", "billing")
                        .withTtl(Duration.ofSeconds(90))
                        .withScopes("read", "write")
                        .withClaims(Map.of("most", most, "least", Long.MIN_VALUE, "name", "Zoë 🦊 <&>")));
        assertEquals(5, issued.token().split("\\.").length);
        assertEquals(Duration.ofSeconds(90), Duration.between(issued.issueTime(), issued.expireTime()));
        assertTrue(Duration.between(issued.issueTime(), Instant.now()).getSeconds() < 60);

        ValidatedToken token = over.client()
                .validate(ValidateRequest.of(issued.token(), "billing").withRequiredScopes("write"));
        assertEquals("user-17", token.subject());
        assertEquals("default", token.profile());
        assertFalse(token.issuer().isEmpty() || token.clientId().isEmpty() || token.ringRevision() == 0);
        assertEquals(List.of("orders", "billing"), token.audiences());
        assertEquals(List.of("read", "write"), token.scopes());
        assertEquals(List.of(issued.tokenId(), issued.keyId()), List.of(token.tokenId(), token.keyId()));
        assertEquals(List.of(issued.issueTime(), issued.expireTime()), List.of(token.issueTime(), token.expireTime()));
        assertEquals("user-17", token.claims().text("sub"));
        assertEquals("Zoë 🦊 <&>", token.claims().text("name"));
        assertEquals(most, token.claims().bigInteger("most"));
        assertEquals(Long.MIN_VALUE, token.claims().integer("least"));
    }

    @ParameterizedTest
    @EnumSource
    void sidecarCarriesClaimsJsonByteForByte(Over over) {
        String member = "\"amount\":1.50,\"u\":18446744073709551615,\"n\":\"\\u0041\\/\"";
        IssuedToken issued = over.client().issue(WANT.withClaimsJson("{" + member + "}"));
        Claims claims = over.client().validate(ask(issued)).claims();
        assertTrue(claims.json().contains(member), claims.json());
        assertEquals("1.50", claims.decimal("amount").toString());
    }

    @ParameterizedTest
    @EnumSource
    void sidecarRejectsWhatIsNoGoodWithTheReason(Over over) {
        String good = over.client().issue(WANT).token();
        String[] parts = good.split("\\.");
        parts[3] = parts[3].replaceAll("[^A]", "A").replaceFirst("A", parts[3].startsWith("A") ? "B" : "A");
        Map<ValidateRequest, Reason> cases = Map.of(
                ValidateRequest.of(String.join(".", parts), "orders"), Reason.TOKEN_INVALID,
                ValidateRequest.of("hello", "orders"), Reason.TOKEN_INVALID,
                ValidateRequest.of(good, "mail"), Reason.TOKEN_AUDIENCE_MISMATCH,
                ValidateRequest.of(good, "orders").withRequiredScopes("x"), Reason.TOKEN_SCOPE_MISSING);
        cases.forEach((request, reason) -> {
            RejectedException error =
                    assertThrows(RejectedException.class, () -> over.client().validate(request));
            assertEquals(reason, error.reason());
            assertTrue(error.requestId().isPresent());
            String printed = error + " " + error.getCause();
            assertFalse(printed.contains(good) || printed.contains("hello"), "the error quotes the token");
        });
    }

    @ParameterizedTest
    @EnumSource
    void sidecarTellsInvalidRequestsAndDeniedCallersApart(Over over) {
        InvalidRequestException error =
                assertThrows(InvalidRequestException.class, () -> over.client().validate(ValidateRequest.of("x")));
        assertEquals("audiences", error.fields().get(0).name());
        for (IssueRequest request : List.of(
                WANT.withTtl(Duration.ofHours(1000)),
                WANT.withTtl(Duration.ofSeconds(Long.MAX_VALUE)),
                WANT.withTtl(Duration.ofMillis(-1500)),
                WANT.withClaimsJson("[1]"))) {
            assertThrows(InvalidRequestException.class, () -> over.client().issue(request));
        }
        try (Admin admin = Admin.connect(over.options())) {
            assertThrows(DeniedException.class, () -> admin.rotate(RotateRequest.of("")), "on the app plane");
        }
    }

    @Test
    void aRevokedTokenIsRejectedAndIsNoRefreshToken() {
        Client client = Over.SOCKET.client();
        String token = client.issue(WANT).token();
        RejectedException refreshed =
                assertThrows(RejectedException.class, () -> client.refresh(RefreshRequest.of(token)));
        assertEquals(Reason.TOKEN_INVALID, refreshed.reason());
        client.revoke(RevokeRequest.of(token));
        RejectedException validated =
                assertThrows(RejectedException.class, () -> client.validate(ValidateRequest.of(token, "orders")));
        assertEquals(Reason.TOKEN_REVOKED, validated.reason());
    }

    @Test
    void aProfileWithoutRefreshTokensSaysSo() {
        InvalidRequestException error = assertThrows(
                InvalidRequestException.class, () -> Over.SOCKET.client().issue(WANT.withRefreshToken()));
        assertEquals("with_refresh_token", error.fields().get(0).name());
    }

    @ParameterizedTest
    @EnumSource
    void sidecarJudgesABatchOneByOne(Over over) {
        List<Result<IssuedToken>> issued = over.client().issueAll(List.of(WANT, IssueRequest.of("", "orders"), WANT));
        InvalidRequestException invalid = assertInstanceOf(
                InvalidRequestException.class, issued.get(1).error().orElseThrow());
        assertTrue(invalid.fields().get(0).name().contains("subject"));
        IssuedToken first = issued.get(0).get();
        List<Result<ValidatedToken>> judged = over.client()
                .validateAll(List.of(
                        ask(first),
                        ValidateRequest.of("hello", "orders"),
                        ValidateRequest.of(issued.get(2).get().token(), "mail")));
        assertEquals(first.tokenId(), judged.get(0).get().tokenId());
        assertEquals(
                List.of(Reason.TOKEN_INVALID, Reason.TOKEN_AUDIENCE_MISMATCH),
                judged.stream()
                        .skip(1)
                        .map(result -> result.error().orElseThrow().reason())
                        .toList());
    }

    @ParameterizedTest
    @EnumSource
    void eachOfTenThousandCallsAtOnceEnds(Over over) throws Exception {
        IssuedToken token = over.client().issue(WANT);
        List<CompletableFuture<ValidatedToken>> calls = new ArrayList<>();
        for (int i = 0; i < 10_000; i++) {
            calls.add(over.client().validateAsync(ask(token)));
        }
        int good = 0;
        for (CompletableFuture<ValidatedToken> call : calls) {
            try {
                call.get(30, TimeUnit.SECONDS);
                good++;
            } catch (ExecutionException failed) {
                UnavailableException error = assertInstanceOf(UnavailableException.class, failed.getCause());
                assertTrue(
                        List.of(Status.Code.DEADLINE_EXCEEDED, Status.Code.RESOURCE_EXHAUSTED)
                                .contains(error.code()),
                        error.toString());
            }
        }
        assertTrue(good > 0);
        over.client().issue(WANT); // it is not to be worn out by them
    }

    /** Rotates, then revokes: one test, for the ring is one. */
    @Test
    void sidecarRotatesWithoutLosingATokenAndRejectsThoseOfARevokedKey() throws InterruptedException {
        Client client = Over.SOCKET.client();
        try (Admin admin = Admin.connect(new Options().withAddress(System.getenv("TOKENSIDECAR_TEST_ADMIN")))) {
            IssuedToken old = client.issue(WANT);
            List<Key> before = admin.listKeys("default");
            long revision = before.get(0).ringRevision();
            RotateRequest request = RotateRequest.of("default")
                    .withExpectedRingRevision(revision)
                    .withReason("test");
            RotateRequest once = request.withRequestId("rotate-" + old.tokenId());
            Rotation rotation = admin.rotate(once);
            assertTrue(rotation.ringRevision() > revision);
            assertEquals(before.size() + 2, rotation.keys().size());
            assertEquals(rotation.ringRevision(), admin.rotate(once).ringRevision(), "the same request again");
            assertThrows(RingChangedException.class, () -> admin.rotate(request), "at the revision of before");

            long wait = Duration.between(Instant.now(), rotation.activateTime()).toMillis() + 1;
            assertTrue(wait < 5_000, "one sidecar alone activates in " + wait + " ms");
            Thread.sleep(Math.max(0, wait));
            IssuedToken fresh = client.issue(WANT);
            assertNotEquals(old.keyId(), fresh.keyId());
            client.validate(ask(old));
            client.validate(ask(fresh));
            List<Key> keys = admin.listKeys("default");
            assertEquals(KeyState.RETIRING, state(keys, old.keyId()));
            assertEquals(KeyState.ACTIVE, state(keys, fresh.keyId()));
            for (Key key : keys) {
                assertEquals(key.state() == KeyState.ACTIVE, key.retireTime().isEmpty(), key.toString());
                assertFalse(key.algorithm().isEmpty() || key.use() == KeyUse.UNKNOWN, key.toString());
            }

            assertThrows(
                    InvalidRequestException.class,
                    () -> admin.revokeKeys(RevokeKeysRequest.of("default")),
                    "without key ids");
            KeyRevocation revocation = admin.revokeKeys(
                    RevokeKeysRequest.of("default", fresh.keyId()).withReason("test"));
            assertEquals(KeyState.COMPROMISED, state(revocation.keys(), fresh.keyId()));
            assertTrue(revocation.ringRevision() > rotation.ringRevision());
            RejectedException error = assertThrows(RejectedException.class, () -> client.validate(ask(fresh)));
            assertEquals(Reason.TOKEN_INVALID, error.reason());
            IssuedToken next = client.issue(WANT);
            assertNotEquals(fresh.keyId(), next.keyId());
            client.validate(ask(next));
        }
    }

    private static KeyState state(List<Key> keys, String keyId) {
        return keys.stream()
                .filter(key -> key.keyId().equals(keyId))
                .findFirst()
                .orElseThrow()
                .state();
    }
}
