package dev.tokensidecar;

import java.util.List;
import java.util.function.Function;
import java.util.regex.Pattern;

/**
 * What a service demands of the bearer token of each request; for {@link ProtectFilter} and {@link ProtectInterceptor}.
 * Each {@code with} gives changed demands.
 *
 * @param <C> what the claims are read into
 */
public final class Protect<C> {
    // In characters, by the contract; a longer one would make the request to the sidecar invalid, as if it were our
    // fault.
    private static final int LONGEST_TOKEN = 16 * 1024;
    private static final Pattern B64TOKEN = Pattern.compile("[A-Za-z0-9._~+/=-]+"); // RFC 6750, section 2.1

    private final Client client;
    private final List<String> audiences;
    private final List<String> profiles;
    private final List<String> scopes;
    private final Function<ValidatedToken, C> reader;

    private Protect(
            Client client,
            List<String> audiences,
            List<String> profiles,
            List<String> scopes,
            Function<ValidatedToken, C> reader) {
        this.client = client;
        this.audiences = audiences;
        this.profiles = profiles;
        this.scopes = scopes;
        this.reader = reader;
    }

    /**
     * A token of the profile "default".
     *
     * @param client who validates it
     * @param audiences the names of the service: the token must be for one of them
     * @return the demands
     */
    public static Protect<Claims> with(Client client, String... audiences) {
        return new Protect<>(client, List.of(audiences), List.of(), List.of(), ValidatedToken::claims);
    }

    /**
     * Sets the kinds of token that are accepted, instead of "default".
     *
     * @param profiles their names
     * @return changed demands
     */
    public Protect<C> withProfiles(String... profiles) {
        return new Protect<>(client, audiences, List.of(profiles), scopes, reader);
    }

    /**
     * Sets the scopes that must be in the token.
     *
     * @param scopes one word each
     * @return changed demands
     */
    public Protect<C> withRequiredScopes(String... scopes) {
        return new Protect<>(client, audiences, profiles, List.of(scopes), reader);
    }

    /**
     * Sets how the claims are read.
     *
     * @param <D> what they are read into
     * @param reader makes it of a good token; whatever it throws says that the token was meant for another service
     * @return changed demands
     */
    public <D> Protect<D> withClaims(Function<ValidatedToken, D> reader) {
        return new Protect<>(client, audiences, profiles, scopes, reader);
    }

    /** Why a request is turned down. */
    enum Kind {
        NO_TOKEN,
        MALFORMED,
        NO_GOOD,
        WITHOUT_SCOPE,
        UNKNOWN_NOW,
        OUR_FAULT
    }

    /** Nothing passes. */
    static final class TurnedDown extends Exception {
        private static final long serialVersionUID = 1;

        private final Kind kind;

        private TurnedDown(Kind kind, RuntimeException cause) {
            super(kind.name(), cause, false, false);
            this.kind = kind;
        }

        Kind kind() {
            return kind;
        }

        /** What the sidecar said of the token. */
        Reason reason() {
            return getCause() instanceof RejectedException rejected ? rejected.reason() : Reason.UNSPECIFIED;
        }
    }

    List<String> scopes() {
        return scopes;
    }

    /**
     * Judges a request by its {@code Authorization}: all values of that header.
     *
     * @throws TurnedDown for all but a good token
     */
    Authorized<C> judge(List<String> authorization) throws TurnedDown {
        String bearer = bearer(authorization);
        try {
            ValidatedToken token = client.validate(ValidateRequest.of(bearer, audiences.toArray(String[]::new))
                    .withProfiles(profiles.toArray(String[]::new))
                    .withRequiredScopes(scopes.toArray(String[]::new)));
            return new Authorized<>(token, read(token));
        } catch (RejectedException rejected) {
            boolean scope = rejected.reason() == Reason.TOKEN_SCOPE_MISSING;
            throw new TurnedDown(scope ? Kind.WITHOUT_SCOPE : Kind.NO_GOOD, rejected);
        } catch (UnavailableException | CancelledException unknown) {
            throw new TurnedDown(Kind.UNKNOWN_NOW, unknown);
        } catch (RuntimeException fault) {
            throw new TurnedDown(Kind.OUR_FAULT, fault);
        }
    }

    private C read(ValidatedToken token) throws TurnedDown {
        try {
            return reader.apply(token);
        } catch (RuntimeException unreadable) {
            throw new TurnedDown(Kind.NO_GOOD, unreadable);
        }
    }

    /** The token of RFC 6750, section 2.1; the other two ways, body and query, are not taken. */
    private static String bearer(List<String> authorization) throws TurnedDown {
        if (authorization.isEmpty()) {
            throw new TurnedDown(Kind.NO_TOKEN, null);
        }
        if (authorization.size() > 1) {
            throw new TurnedDown(Kind.MALFORMED, null);
        }
        String[] parts = authorization.get(0).split(" ", 2);
        if (!parts[0].equalsIgnoreCase("Bearer")) {
            throw new TurnedDown(Kind.NO_TOKEN, null);
        }
        String token = parts.length == 1 ? "" : parts[1].strip();
        if (!B64TOKEN.matcher(token).matches()) {
            throw new TurnedDown(Kind.MALFORMED, null);
        }
        if (token.length() > LONGEST_TOKEN) {
            throw new TurnedDown(Kind.NO_GOOD, null);
        }
        return token;
    }

    @Override
    public String toString() {
        return "Protect[audiences=" + audiences + ", profiles=" + profiles + ", requiredScopes=" + scopes + "]";
    }
}
