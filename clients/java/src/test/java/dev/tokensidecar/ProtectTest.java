package dev.tokensidecar;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;

import com.google.rpc.RetryInfo;
import dev.tokensidecar.v1.GetJwksRequest;
import dev.tokensidecar.v1.GetJwksResponse;
import dev.tokensidecar.v1.TokenServiceGrpc;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.InsecureServerCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import io.grpc.stub.StreamObserver;
import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServlet;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.catalina.Context;
import org.apache.catalina.LifecycleException;
import org.apache.catalina.startup.Tomcat;
import org.apache.tomcat.util.descriptor.web.FilterDef;
import org.apache.tomcat.util.descriptor.web.FilterMap;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** The filter in a Servlet container, and the gRPC interceptor, before a fake. */
@Timeout(60)
class ProtectTest {
    /** What a service expects. */
    record Orders(String tenant) {
        static Orders of(ValidatedToken token) {
            return new Orders(token.claims().text("tenant"));
        }
    }

    private static final String BARE = "Bearer realm=\"tokensidecar\"";

    /** A sidecar that says of each token what its text asks for. */
    private final Fake fake = new Fake().on("Validate", (dev.tokensidecar.v1.ValidateRequest request) -> {
        String demands =
                String.join(",", request.getProfilesList()) + String.join(",", request.getRequiredScopesList());
        return switch (request.getToken()) {
            case "good" ->
                Fake.validated("ada", "{\"tenant\":\"acme" + demands + "\"}").toBuilder()
                        .addScopes("read")
                        .build();
            case "other.claims" -> Fake.validated("ada", "{\"tenant\":1}");
            case "expired" -> throw Fake.failure(Status.Code.UNAUTHENTICATED, Reason.TOKEN_EXPIRED, "no");
            case "scope" -> throw Fake.failure(Status.Code.UNAUTHENTICATED, Reason.TOKEN_SCOPE_MISSING, "no");
            case "stale" -> throw Fake.failure(Status.Code.UNAVAILABLE, Reason.STATE_STALE, "no");
            case "busy" ->
                throw Fake.failure(
                        Status.Code.RESOURCE_EXHAUSTED,
                        Reason.OVERLOADED,
                        "no",
                        RetryInfo.newBuilder()
                                .setRetryDelay(com.google.protobuf.Duration.newBuilder()
                                        .setSeconds(1)
                                        .setNanos(200_000_000))
                                .build());
            case "denied" -> throw Fake.failure(Status.Code.PERMISSION_DENIED, Reason.CALLER_DENIED, "no");
            case "internal" -> throw Fake.failure(Status.Code.INTERNAL, Reason.INTERNAL, "no");
            default -> throw Fake.failure(Status.Code.INVALID_ARGUMENT, Reason.REQUEST_INVALID, "no");
        };
    });

    private final AtomicInteger reached = new AtomicInteger();
    private final AtomicReference<Object> logged = new AtomicReference<>();
    private Client client;

    @BeforeEach
    void start() throws IOException {
        client = fake.client();
    }

    @AfterEach
    void end() throws IOException {
        client.close();
        fake.close();
    }

    private Protect<Orders> orders() {
        return Protect.with(client, "orders").withClaims(Orders::of);
    }

    /** A route of Tomcat's, behind a filter or not. */
    private final class Route implements AutoCloseable {
        private final Tomcat tomcat = new Tomcat();

        Route(Path directory, ProtectFilter filter) throws LifecycleException {
            tomcat.setBaseDir(directory.toString());
            tomcat.setPort(0);
            tomcat.getConnector().setProperty("maxHttpHeaderSize", "65536");
            Context context = tomcat.addContext("", directory.toString());
            Tomcat.addServlet(context, "orders", new HttpServlet() {
                private static final long serialVersionUID = 1;

                @Override
                protected void doGet(HttpServletRequest request, HttpServletResponse response) throws IOException {
                    Authorized<Orders> caller = ProtectFilter.caller(request, Orders.class);
                    reached.incrementAndGet();
                    response.getWriter()
                            .print(caller.getName() + " of " + caller.claims().tenant() + " "
                                    + Objects.equals(
                                            request.getUserPrincipal(), request.getAttribute(ProtectFilter.CALLER))
                                    + request.isUserInRole("read") + request.isUserInRole("write")
                                    + request.getRemoteUser() + request.getAuthType());
                }
            });
            context.addServletMapping("/orders", "orders");
            add(context, new Filter() {
                @Override
                public void doFilter(ServletRequest request, ServletResponse response, FilterChain chain)
                        throws IOException, ServletException {
                    chain.doFilter(request, response);
                    logged.set(request.getAttribute(ProtectFilter.ERROR));
                }
            });
            if (filter != null) {
                add(context, filter);
            }
            tomcat.start();
        }

        private static void add(Context context, Filter filter) {
            FilterDef definition = new FilterDef();
            definition.setFilterName(filter.getClass().getName());
            definition.setFilter(filter);
            context.addFilterDef(definition);
            FilterMap map = new FilterMap();
            map.setFilterName(definition.getFilterName());
            map.addURLPattern("/*");
            context.addFilterMap(map);
        }

        /** By hand, for headers that an HTTP client would refuse. */
        Answer get(String... authorization) throws IOException {
            try (java.net.Socket socket =
                    new java.net.Socket("127.0.0.1", tomcat.getConnector().getLocalPort())) {
                StringBuilder request = new StringBuilder("GET /orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\n");
                for (String value : authorization) {
                    request.append("Authorization: ").append(value).append("\r\n");
                }
                socket.getOutputStream().write(request.append("\r\n").toString().getBytes(StandardCharsets.UTF_8));
                String text = new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
                String[] parts = text.split("\r\n\r\n", 2);
                Answer answer = new Answer(Integer.parseInt(parts[0].split(" ")[1]), null, null, parts[1]);
                for (String line : parts[0].split("\r\n")) {
                    String[] header = line.split(": ", 2);
                    if (header[0].equalsIgnoreCase("WWW-Authenticate")) {
                        answer = new Answer(answer.status(), header[1], answer.retryAfter(), answer.body());
                    } else if (header[0].equalsIgnoreCase("Retry-After")) {
                        answer = new Answer(answer.status(), answer.challenge(), header[1], answer.body());
                    }
                }
                return answer;
            }
        }

        @Override
        public void close() throws LifecycleException {
            tomcat.stop();
            tomcat.destroy();
        }
    }

    private record Answer(int status, String challenge, String retryAfter, String body) {}

    @Test
    void goodTokenReachesTheRouteWithItsClaims(@TempDir Path directory) throws Exception {
        try (Route route = new Route(directory, new ProtectFilter(orders()))) {
            for (String value : List.of("Bearer good", "bearer good", "BEARER  good ")) {
                Answer answer = route.get(value);
                assertEquals(200, answer.status());
                assertEquals(
                        "ada of acme truetruefalseadaBearer",
                        answer.body()
                                .lines()
                                .filter(line -> line.contains("ada"))
                                .findFirst()
                                .orElse(""));
            }
        }
        assertEquals(3, reached.get());
    }

    @Test
    void profilesAndScopesAreDemanded(@TempDir Path directory) throws Exception {
        Protect<Orders> protect = orders().withProfiles("p").withRequiredScopes("read", "write");
        try (Route route = new Route(directory, new ProtectFilter(protect))) {
            assertEquals(200, route.get("Bearer good").status());
        }
        dev.tokensidecar.v1.ValidateRequest sent =
                (dev.tokensidecar.v1.ValidateRequest) fake.seen.get(0).request();
        assertEquals(List.of("orders"), sent.getAudiencesList());
        assertEquals(List.of("p"), sent.getProfilesList());
        assertEquals(List.of("read", "write"), sent.getRequiredScopesList());
    }

    @Test
    void everythingElseIsAnsweredAsRfc6750Says(@TempDir Path directory) throws Exception {
        Protect<Orders> protect = orders().withRequiredScopes("read", "write");
        String malformed = BARE + ", error=\"invalid_request\"";
        String noGood = BARE + ", error=\"invalid_token\"";
        String[][] cases = {
            // authorization; status, challenge, Retry-After
            {"401", BARE, null},
            {"401", BARE, null, "Basic Z29vZA=="},
            {"400", malformed, null, "Bearer"},
            {"400", malformed, null, "Bearer "},
            {"400", malformed, null, "Bearer a b"},
            {"400", malformed, null, "Bearer a,b"},
            {"400", malformed, null, "Bearer gööd"},
            {"400", malformed, null, "Bearer good", "Bearer good"},
            {"400", malformed, null, "Bearer good", "Basic Z29vZA=="},
            {"401", noGood + ", error_description=\"TOKEN_EXPIRED\"", null, "Bearer expired"},
            {"401", noGood, null, "Bearer other.claims"},
            {"401", noGood, null, "Bearer " + "a".repeat(16 * 1024 + 1)},
            {"403", BARE + ", error=\"insufficient_scope\", scope=\"read write\"", null, "Bearer scope"},
            {"503", null, null, "Bearer stale"},
            {"503", null, "2", "Bearer busy"},
            {"500", null, null, "Bearer denied"},
            {"500", null, null, "Bearer internal"},
            {"500", null, null, "Bearer unknown"},
        };
        try (Route route = new Route(directory, new ProtectFilter(protect))) {
            for (String[] each : cases) {
                String[] authorization = java.util.Arrays.copyOfRange(each, 3, each.length);
                Answer answer = route.get(authorization);
                assertEquals(
                        new Answer(Integer.parseInt(each[0]), each[1], each[2], ""),
                        answer,
                        String.join(" | ", authorization));
            }
        }
        assertEquals(0, reached.get());
    }

    @Test
    void nothingPassesWhileTheSidecarIsDown(@TempDir Path directory) throws Exception {
        try (Route route = new Route(directory, new ProtectFilter(orders()))) {
            fake.stop();
            assertEquals(503, route.get("Bearer good").status());
            assertInstanceOf(UnavailableException.class, logged.get());
            client.close();
            assertEquals(503, route.get("Bearer good").status());
        }
        assertEquals(0, reached.get());
    }

    @Test
    void routeThatWasLeftUnprotectedOrReadsOtherClaimsDoesNotRun(@TempDir Path directory) throws Exception {
        try (Route route = new Route(directory, null)) {
            assertEquals(500, route.get("Bearer good").status());
        }
        try (Route route = new Route(directory, new ProtectFilter(Protect.with(client, "orders")))) {
            assertEquals(500, route.get("Bearer good").status());
        }
        assertEquals(0, reached.get());
    }

    private record Call(String authorization, Status.Code code, String message) {}

    @Test
    void grpcServiceGetsTheClaimsAndItsCallersAStatus() throws Exception {
        Server server = Grpc.newServerBuilderForPort(0, InsecureServerCredentials.create())
                .addService(new TokenServiceGrpc.TokenServiceImplBase() {
                    @Override
                    public void getJwks(GetJwksRequest request, StreamObserver<GetJwksResponse> answer) {
                        Authorized<Orders> caller = ProtectInterceptor.caller(Orders.class);
                        answer.onNext(GetJwksResponse.newBuilder()
                                .setJwksJson(caller.getName() + " of "
                                        + caller.claims().tenant())
                                .build());
                        answer.onCompleted();
                    }
                })
                .intercept(new ProtectInterceptor(orders()))
                .build()
                .start();
        ManagedChannel channel = Grpc.newChannelBuilder(
                        "127.0.0.1:" + server.getPort(), InsecureChannelCredentials.create())
                .build();
        try {
            assertEquals("ada of acme", jwks(channel, "Bearer good"));
            List<Call> calls = new ArrayList<>(List.of(
                    new Call("Bearer a b", Status.Code.UNAUTHENTICATED, "the authorization is malformed"),
                    new Call("Bearer other.claims", Status.Code.UNAUTHENTICATED, "the token is no good"),
                    new Call("Bearer expired", Status.Code.UNAUTHENTICATED, "TOKEN_EXPIRED"),
                    new Call("Bearer scope", Status.Code.PERMISSION_DENIED, "TOKEN_SCOPE_MISSING"),
                    new Call("Bearer stale", Status.Code.UNAVAILABLE, "the token cannot be judged now"),
                    new Call("Bearer denied", Status.Code.INTERNAL, "the token cannot be judged")));
            calls.add(new Call(null, Status.Code.UNAUTHENTICATED, "a bearer token is required"));
            for (Call call : calls) {
                StatusRuntimeException error =
                        assertThrows(StatusRuntimeException.class, () -> jwks(channel, call.authorization()));
                assertEquals(
                        call,
                        new Call(
                                call.authorization(),
                                error.getStatus().getCode(),
                                error.getStatus().getDescription()));
            }
        } finally {
            channel.shutdownNow();
            server.shutdownNow();
        }
        assertThrows(IllegalStateException.class, () -> ProtectInterceptor.caller(Orders.class));
    }

    private static String jwks(ManagedChannel channel, String authorization) {
        Metadata headers = new Metadata();
        if (authorization != null) {
            headers.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), authorization);
        }
        return TokenServiceGrpc.newBlockingStub(channel)
                .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(headers))
                .getJwks(GetJwksRequest.getDefaultInstance())
                .getJwksJson();
    }
}
