import dev.tokensidecar.Client;
import dev.tokensidecar.IssueRequest;
import dev.tokensidecar.IssuedToken;
import dev.tokensidecar.RejectedException;
import dev.tokensidecar.ValidateRequest;
import dev.tokensidecar.ValidatedToken;
import java.math.BigInteger;
import java.time.Duration;
import java.util.Map;

/** Issues a token and validates it. Needs a sidecar: {@code make run} in the repository. */
public class Issue {
    public static void main(String[] arguments) {
        try (Client client = Client.connect()) {
            IssuedToken issued = client.issue(IssueRequest.of("user-17", "orders")
                    .withTtl(Duration.ofSeconds(60))
                    .withClaims(Map.of("tenant", "acme", "account", new BigInteger("18446744073709551615"))));
            String text = issued.token();

            ValidatedToken token = client.validate(ValidateRequest.of(text, "orders"));
            System.out.printf(
                    "%s of %s, account %s%n",
                    token.subject(),
                    token.claims().text("tenant"),
                    token.claims().bigInteger("account"));

            try {
                client.validate(ValidateRequest.of(text, "mail"));
            } catch (RejectedException error) {
                System.out.println("for mail: " + error.reason());
            }
        }
    }
}
