import com.google.gson.Gson;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import dev.tokensidecar.Admin;
import dev.tokensidecar.Client;
import dev.tokensidecar.DeniedException;
import dev.tokensidecar.InvalidRequestException;
import dev.tokensidecar.IssueRequest;
import dev.tokensidecar.IssuedToken;
import dev.tokensidecar.Key;
import dev.tokensidecar.Options;
import dev.tokensidecar.Reason;
import dev.tokensidecar.RefreshRequest;
import dev.tokensidecar.RejectedException;
import dev.tokensidecar.Result;
import dev.tokensidecar.RevokeKeysRequest;
import dev.tokensidecar.RevokeRequest;
import dev.tokensidecar.RingChangedException;
import dev.tokensidecar.RotateRequest;
import dev.tokensidecar.TokenSidecarException;
import dev.tokensidecar.UnavailableException;
import dev.tokensidecar.ValidateRequest;
import dev.tokensidecar.ValidatedToken;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.function.Function;

/** The driver of this client, not an example of its use: it plays the scenarios that all clients must pass. */
public class Conformance {
    private static final Gson GSON = new Gson();

    private Client client;
    private Admin admin;

    public static void main(String[] arguments) throws Exception {
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, true, StandardCharsets.UTF_8);
        Conformance driver = new Conformance();
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            JsonObject command = GSON.fromJson(line, JsonObject.class);
            Object answer;
            try {
                answer = driver.answer(command);
            } catch (TokenSidecarException error) {
                answer = failed(error);
            }
            out.println(GSON.toJson(answer));
        }
        System.exit(0);
    }

    private static Map<String, Object> failed(TokenSidecarException error) {
        List<String> fields = new ArrayList<>();
        if (error instanceof InvalidRequestException invalid) {
            invalid.fields().forEach(field -> fields.add(field.name()));
        }
        return Map.of("error", kind(error), "reason", reason(error), "fields", fields);
    }

    private static String kind(TokenSidecarException error) {
        if (error instanceof RejectedException) {
            return "rejected";
        } else if (error instanceof InvalidRequestException) {
            return "invalid";
        } else if (error instanceof DeniedException) {
            return "denied";
        } else if (error instanceof RingChangedException) {
            return "changed";
        }
        return error instanceof UnavailableException ? "unavailable" : "failed";
    }

    private static String reason(TokenSidecarException error) {
        return error.reason() == Reason.UNSPECIFIED ? "" : error.reason().name();
    }

    private static Map<String, Object> lacks(String what) {
        return Map.of("error", "lacks", "reason", what, "fields", List.of());
    }

    private static Map<String, Object> ok(Map<String, ?> facts) {
        return Map.of("ok", facts);
    }

    private static Map<String, Object> issued(IssuedToken token) {
        return ok(Map.of(
                "token", token.token(),
                "token_id", token.tokenId(),
                "key_id", token.keyId(),
                "scopes", token.scopes(),
                "refresh_token", token.refreshToken().orElse("")));
    }

    private static Map<String, Object> validated(ValidatedToken token) {
        return ok(Map.of(
                "subject", token.subject(),
                "profile", token.profile(),
                "audiences", token.audiences(),
                "scopes", token.scopes(),
                "client_id", token.clientId(),
                "key_id", token.keyId(),
                "claims_json", token.claims().json()));
    }

    private static Map<String, Object> keys(List<Key> keys) {
        return ok(Map.of(
                "keys",
                keys.stream()
                        .map(key -> (key.use() + " " + key.state()).toLowerCase())
                        .sorted()
                        .toList()));
    }

    private static <T> Map<String, Object> each(List<Result<T>> results, Function<T, Map<String, Object>> facts) {
        return ok(Map.of(
                "results",
                results.stream()
                        .map(result ->
                                result.error().map(Conformance::failed).orElseGet(() -> facts.apply(result.get())))
                        .toList()));
    }

    private static String text(JsonObject command, String name) {
        return command.has(name) ? command.get(name).getAsString() : "";
    }

    private static String[] texts(JsonObject command, String name) {
        return command.has(name) ? GSON.fromJson(command.get(name), String[].class) : new String[0];
    }

    private static Duration seconds(JsonElement count) {
        return Duration.ofMillis((long) (count.getAsDouble() * 1000));
    }

    private static IssueRequest issue(JsonObject command) {
        IssueRequest request = IssueRequest.of(text(command, "subject"), texts(command, "audiences"))
                .withProfile(text(command, "profile"))
                .withScopes(texts(command, "scopes"));
        if (command.has("ttl")) {
            request = request.withTtl(seconds(command.get("ttl")));
        }
        if (command.has("claims_json")) {
            request = request.withClaimsJson(text(command, "claims_json"));
        }
        return command.has("with_refresh_token") ? request.withRefreshToken() : request;
    }

    private static Options options(JsonObject command) {
        Options options = new Options().withAddress(text(command, "address"));
        if (command.has("start_timeout")) {
            options = options.withStartTimeout(seconds(command.get("start_timeout")));
        }
        if (command.has("timeout")) {
            options = options.withTimeout(seconds(command.get("timeout")));
        }
        if (command.has("validate_timeout")) {
            options = options.withValidateTimeout(seconds(command.get("validate_timeout")));
        }
        return options;
    }

    private Map<String, Object> answer(JsonObject command) throws Exception {
        if (command.has("tls")) {
            return lacks("TLS");
        }
        if (command.has("jwk_thumbprint")) {
            return lacks("bound tokens");
        }
        String profile = text(command, "profile");
        switch (text(command, "do")) {
            case "connect":
                if (client != null) {
                    client.close();
                }
                client = Client.connect(options(command));
                return ok(Map.of());
            case "connect_admin":
                if (admin != null) {
                    admin.close();
                }
                admin = Admin.connect(options(command));
                return ok(Map.of());
            case "issue":
                return issued(client.issue(issue(command)));
            case "validate":
                return validated(client.validate(ValidateRequest.of(text(command, "token"), texts(command, "audiences"))
                        .withProfiles(texts(command, "profiles"))
                        .withRequiredScopes(texts(command, "required_scopes"))
                        .withRequestId(text(command, "request_id"))));
            case "batch_issue":
                List<IssueRequest> requests = new ArrayList<>();
                command.getAsJsonArray("requests").forEach(each -> requests.add(issue(each.getAsJsonObject())));
                return each(client.issueAll(requests), Conformance::issued);
            case "batch_validate":
                List<ValidateRequest> tokens = new ArrayList<>();
                for (String token : texts(command, "tokens")) {
                    tokens.add(ValidateRequest.of(token, texts(command, "audiences")));
                }
                return each(client.validateAll(tokens), Conformance::validated);
            case "refresh":
                return issued(client.refresh(
                        RefreshRequest.of(text(command, "refresh_token")).withScopes(texts(command, "scopes"))));
            case "revoke":
                client.revoke(RevokeRequest.of(text(command, "token")));
                return ok(Map.of());
            case "keys":
                return keys(admin.listKeys(profile));
            case "rotate":
                long revision = command.has("expected_ring_revision")
                        ? command.get("expected_ring_revision").getAsLong()
                        : 0;
                return keys(admin.rotate(RotateRequest.of(profile).withExpectedRingRevision(revision))
                        .keys());
            case "revoke_keys":
                return keys(admin.revokeKeys(RevokeKeysRequest.of(profile, texts(command, "key_ids")))
                        .keys());
            case "traffic":
                return traffic(command);
            default:
                return lacks(text(command, "do"));
        }
    }

    /** Each caller goes on until the time is over, and at least once; the admin client may rotate meanwhile. */
    private Map<String, Object> traffic(JsonObject command) throws Exception {
        long until = System.nanoTime() + seconds(command.get("seconds")).toNanos();
        int count = command.get("callers").getAsInt();
        ExecutorService callers = Executors.newFixedThreadPool(count);
        List<Future<List<String>>> underWay = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            underWay.add(callers.submit(() -> {
                List<String> ended = new ArrayList<>();
                do {
                    ended.add(turn(command));
                } while (System.nanoTime() < until);
                return ended;
            }));
        }
        if (command.has("rotate_after")) {
            Thread.sleep(seconds(command.get("rotate_after")).toMillis());
            admin.rotate(RotateRequest.of(text(command, "profile")));
        }
        Map<String, Integer> ends = new TreeMap<>();
        for (Future<List<String>> caller : underWay) {
            caller.get().forEach(end -> ends.merge(end, 1, Integer::sum));
        }
        callers.shutdown();
        return ok(Map.of("ends", ends));
    }

    private String turn(JsonObject command) {
        try {
            String token = command.has("token")
                    ? text(command, "token")
                    : client.issue(issue(command)).token();
            ValidateRequest request = ValidateRequest.of(token, texts(command, "audiences"));
            client.validate(command.has("profile") ? request.withProfiles(text(command, "profile")) : request);
            return "ok";
        } catch (TokenSidecarException error) {
            return (kind(error) + " " + reason(error)).trim();
        }
    }
}
