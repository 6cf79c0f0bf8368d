package dev.tokensidecar;

import jakarta.servlet.Filter;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.ServletRequest;
import jakarta.servlet.ServletResponse;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletRequestWrapper;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.security.Principal;
import java.time.Duration;
import java.util.Collections;
import java.util.Enumeration;
import java.util.List;

/**
 * A Servlet filter that lets only good tokens through, and answers everything else itself, as RFC 6750, section 3, says:
 *
 * <table>
 * <caption>What is answered</caption>
 * <tr><th>the request</th><th>answer</th></tr>
 * <tr><td>has no bearer token</td><td>401</td></tr>
 * <tr><td>has an {@code Authorization} that is malformed, or two</td><td>400, {@code invalid_request}</td></tr>
 * <tr><td>has a token that is no good, or whose claims cannot be read</td><td>401, {@code invalid_token}</td></tr>
 * <tr><td>has a token without a required scope</td><td>403, {@code insufficient_scope}</td></tr>
 * <tr><td>cannot be judged now</td><td>503, with {@code Retry-After} if the sidecar said when</td></tr>
 * <tr><td>is one that this program got wrong, or may not judge</td><td>500</td></tr>
 * </table>
 *
 * <p>Behind it, {@link #caller} has the token and its claims. The request's principal is the same {@link Authorized},
 * its name the subject; {@code isUserInRole} says whether the token has a scope.
 */
public final class ProtectFilter implements Filter {
    /** The request attribute with the {@link Authorized}. */
    public static final String CALLER = "dev.tokensidecar.caller";
    /** The request attribute with what went wrong, for a log: a {@link RuntimeException}. */
    public static final String ERROR = "dev.tokensidecar.error";

    // RFC 6750, section 3, wants at least one parameter.
    private static final String BEARER = "Bearer realm=\"tokensidecar\"";

    private final Protect<?> protect;

    /**
     * A filter for the routes that it is mapped to.
     *
     * @param protect what is demanded
     */
    public ProtectFilter(Protect<?> protect) {
        this.protect = protect;
    }

    /**
     * Who calls.
     *
     * @param <C> what the claims are read into
     * @param request one that came through the filter
     * @param claims the same, as a class: {@code Claims.class} without {@link Protect#withClaims}
     * @return what the token says
     * @throws IllegalStateException where the route is not protected, or its claims are of another type
     */
    public static <C> Authorized<C> caller(ServletRequest request, Class<C> claims) {
        if (request.getAttribute(CALLER) instanceof Authorized<?> caller) {
            return caller.as(claims);
        }
        throw new IllegalStateException("this route is not protected");
    }

    @Override
    public void doFilter(ServletRequest request, ServletResponse response, FilterChain chain)
            throws IOException, ServletException {
        if (!(request instanceof HttpServletRequest http) || !(response instanceof HttpServletResponse answer)) {
            throw new ServletException("only HTTP can be protected");
        }
        Authorized<?> caller;
        try {
            caller = protect.judge(authorization(http));
        } catch (Protect.TurnedDown no) {
            if (no.getCause() != null) {
                request.setAttribute(ERROR, no.getCause());
            }
            turnDown(answer, no);
            return;
        }
        request.setAttribute(CALLER, caller);
        chain.doFilter(new Request(http, caller), response);
    }

    private static List<String> authorization(HttpServletRequest request) {
        Enumeration<String> values = request.getHeaders("Authorization");
        return values == null ? List.of() : Collections.list(values);
    }

    private void turnDown(HttpServletResponse answer, Protect.TurnedDown no) {
        switch (no.kind()) {
            case NO_TOKEN -> challenge(answer, HttpServletResponse.SC_UNAUTHORIZED, "");
            case MALFORMED -> challenge(answer, HttpServletResponse.SC_BAD_REQUEST, ", error=\"invalid_request\"");
            case NO_GOOD -> {
                String why = no.reason() == Reason.UNSPECIFIED ? "" : ", error_description=\"" + no.reason() + "\"";
                challenge(answer, HttpServletResponse.SC_UNAUTHORIZED, ", error=\"invalid_token\"" + why);
            }
            case WITHOUT_SCOPE -> {
                String scope = String.join(" ", protect.scopes());
                challenge(
                        answer,
                        HttpServletResponse.SC_FORBIDDEN,
                        ", error=\"insufficient_scope\", scope=\"" + scope + "\"");
            }
            case UNKNOWN_NOW -> {
                answer.setStatus(HttpServletResponse.SC_SERVICE_UNAVAILABLE);
                if (no.getCause() instanceof UnavailableException unavailable) {
                    unavailable.retryAfter().ifPresent(wait -> answer.setHeader("Retry-After", seconds(wait)));
                }
            }
            case OUR_FAULT -> answer.setStatus(HttpServletResponse.SC_INTERNAL_SERVER_ERROR);
        }
    }

    private static void challenge(HttpServletResponse answer, int status, String parameters) {
        answer.setStatus(status);
        answer.setHeader("WWW-Authenticate", BEARER + parameters);
    }

    /** Rounded up, and at least one. */
    private static String seconds(Duration wait) {
        return Long.toString(Math.max(1, wait.getSeconds() + (wait.getNano() > 0 ? 1 : 0)));
    }

    private static final class Request extends HttpServletRequestWrapper {
        private final Authorized<?> caller;

        Request(HttpServletRequest request, Authorized<?> caller) {
            super(request);
            this.caller = caller;
        }

        @Override
        public Principal getUserPrincipal() {
            return caller;
        }

        @Override
        public String getRemoteUser() {
            return caller.getName();
        }

        @Override
        public String getAuthType() {
            return "Bearer";
        }

        @Override
        public boolean isUserInRole(String role) {
            return caller.token().scopes().contains(role);
        }
    }
}
