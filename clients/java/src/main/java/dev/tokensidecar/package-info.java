/**
 * Issues and validates encrypted JWTs through a Token Sidecar on the same machine.
 *
 * <pre>{@code
 * Client client = Client.connect();
 * ValidatedToken token = client.validate(ValidateRequest.of(text, "orders"));
 * }</pre>
 *
 * <p>{@link dev.tokensidecar.Client#connect()} finds the sidecar by itself. A token that is no good is a
 * {@link dev.tokensidecar.RejectedException} with the {@link dev.tokensidecar.Reason}; whatever else goes wrong is
 * another {@link dev.tokensidecar.TokenSidecarException}, and says nothing about the token: a token is good only where
 * {@code validate} returns.
 *
 * <p>To give a call up, interrupt its thread, or cancel the future of {@code validateAsync} or {@code issueAsync}.
 * Everything here may be used by several threads at once, and requests and answers never change.
 *
 * <p>What holds a token or claims leaves them out of its {@code toString}.
 */
package dev.tokensidecar;
