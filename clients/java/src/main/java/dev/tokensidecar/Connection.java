package dev.tokensidecar;

import io.grpc.CallOptions;
import io.grpc.ClientCall;
import io.grpc.ConnectivityState;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.netty.channel.EventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.MultiThreadIoEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.nio.NioIoHandler;
import io.grpc.netty.shaded.io.netty.util.concurrent.DefaultThreadFactory;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.time.Duration;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.function.Function;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** The way to one plane of a sidecar. */
final class Connection implements AutoCloseable {
    // For one address in one round: a silent one must not keep the others waiting.
    private static final Duration ATTEMPT = Duration.ofSeconds(1);
    private static final Duration FIRST_PAUSE = Duration.ofMillis(20);
    private static final Duration LAST_PAUSE = Duration.ofMillis(500);
    // How long a call waits for a sidecar that was away: it is on this machine, and there at once or not at all.
    private static final Duration RECONNECT = Duration.ofMillis(50);

    private static final CompletableFuture<Void> DONE = CompletableFuture.completedFuture(null);

    private final ManagedChannel channel;
    private final EventLoopGroup loop;

    private Connection(ManagedChannel channel, EventLoopGroup loop) {
        this.channel = channel;
        this.loop = loop;
    }

    static Connection open(Plane plane, Options options) {
        return firstReady(plane.addresses(options.address(), System::getenv), options.startTimeout());
    }

    /** Tries the addresses in turn, round after round, until one answers or the time is over. */
    static Connection firstReady(List<Address> addresses, Duration wait) {
        EventLoopGroup loop = new MultiThreadIoEventLoopGroup(
                1, new DefaultThreadFactory("tokensidecar", true), NioIoHandler.newFactory());
        try {
            Connection connection = new Connection(find(addresses, wait, loop), loop);
            loop = null;
            return connection;
        } finally {
            if (loop != null) {
                end(loop);
            }
        }
    }

    private static ManagedChannel find(List<Address> addresses, Duration wait, EventLoopGroup loop) {
        long end = System.nanoTime() + saturated(wait);
        String[] failures = new String[addresses.size()];
        for (Duration pause = FIRST_PAUSE; ; pause = shorter(pause.multipliedBy(2), LAST_PAUSE)) {
            for (int i = 0; i < failures.length; i++) {
                Duration left = Duration.ofNanos(end - System.nanoTime());
                try {
                    return Dial.ready(addresses.get(i), loop, shorter(left, ATTEMPT));
                } catch (IOException failure) {
                    if (failures[i] == null || end - System.nanoTime() > 0) { // its end says less than what came before
                        failures[i] = failure.getMessage();
                    }
                }
            }
            long left = end - System.nanoTime();
            if (left <= 0) {
                String tried = IntStream.range(0, failures.length)
                        .mapToObj(i -> addresses.get(i) + " (" + failures[i] + ")")
                        .collect(Collectors.joining(", "));
                throw new UnavailableException(new TokenSidecarException.Answer(
                        Status.Code.UNAVAILABLE, "no sidecar answers; tried " + tried));
            }
            try {
                TimeUnit.NANOSECONDS.sleep(Math.min(left, pause.toNanos()));
            } catch (InterruptedException interrupted) {
                throw interrupted(interrupted);
            }
        }
    }

    private static Duration shorter(Duration a, Duration b) {
        return a.compareTo(b) < 0 ? a : b;
    }

    /** Of what no long holds, the half: longer than anybody waits. */
    private static long saturated(Duration duration) {
        try {
            return Math.min(duration.toNanos(), Long.MAX_VALUE / 2);
        } catch (ArithmeticException tooLong) {
            return Long.MAX_VALUE / 2;
        }
    }

    private static CancelledException interrupted(InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        return new CancelledException(new TokenSidecarException.Answer(
                Status.Code.CANCELLED, Reason.UNSPECIFIED, "given up", null, List.of(), null, interrupted));
    }

    /** Sends the request and waits; an interrupt cancels the call. */
    <Q, A> A call(MethodDescriptor<Q, A> method, Q request, Duration deadline) {
        CallOptions options = until(deadline);
        try {
            awake().get();
            return ClientCalls.blockingUnaryCall(channel, method, options, request);
        } catch (StatusRuntimeException failure) {
            throw TokenSidecarException.of(failure);
        } catch (InterruptedException interrupted) {
            throw interrupted(interrupted);
        } catch (ExecutionException impossible) {
            throw new AssertionError(impossible);
        }
    }

    /** Sends the request and gives what is read from the answer; to cancel the future cancels the call. */
    <Q, A, R> CompletableFuture<R> callAsync(
            MethodDescriptor<Q, A> method, Q request, Duration deadline, Function<A, R> read) {
        CallOptions options = until(deadline);
        CompletableFuture<R> result = new CompletableFuture<>();
        Runnable send = Context.current().wrap(() -> {
            ClientCall<Q, A> call = channel.newCall(method, options);
            ClientCalls.asyncUnaryCall(call, request, completing(result, read));
            result.whenComplete((value, failure) -> {
                if (result.isCancelled()) {
                    call.cancel("given up", null);
                }
            });
        });
        CompletableFuture<Void> awake = awake();
        if (awake.isDone()) {
            send.run();
        } else {
            awake.thenRun(send);
        }
        return result;
    }

    private static <A, R> StreamObserver<A> completing(CompletableFuture<R> result, Function<A, R> read) {
        return new StreamObserver<>() {
            @Override
            public void onNext(A answer) {
                try {
                    result.complete(read.apply(answer));
                } catch (TokenSidecarException broken) {
                    result.completeExceptionally(broken);
                }
            }

            @Override
            public void onError(Throwable failure) {
                result.completeExceptionally(
                        failure instanceof StatusRuntimeException status
                                ? TokenSidecarException.of(status)
                                : TokenSidecarException.broken(String.valueOf(failure)));
            }

            @Override
            public void onCompleted() {
                result.completeExceptionally(TokenSidecarException.broken("the answer is empty"));
            }
        };
    }

    private static CallOptions until(Duration deadline) {
        return CallOptions.DEFAULT.withDeadlineAfter(saturated(deadline), TimeUnit.NANOSECONDS);
    }

    /**
     * Has a lost connection tried again at once, where gRPC would wait for up to two minutes. Done when there is one, or
     * when there is none so soon.
     */
    private CompletableFuture<Void> awake() {
        if (channel.getState(false) != ConnectivityState.TRANSIENT_FAILURE) {
            return DONE;
        }
        CompletableFuture<Void> changed = new CompletableFuture<>();
        channel.notifyWhenStateChanged(ConnectivityState.TRANSIENT_FAILURE, () -> changed.complete(null));
        channel.resetConnectBackoff();
        return changed.completeOnTimeout(null, RECONNECT.toMillis(), TimeUnit.MILLISECONDS);
    }

    /** Ends the connection; calls under way fail. */
    @Override
    public void close() {
        channel.shutdownNow();
        end(loop);
    }

    private static void end(EventLoopGroup loop) {
        loop.shutdownGracefully(0, 1, TimeUnit.SECONDS);
    }
}
