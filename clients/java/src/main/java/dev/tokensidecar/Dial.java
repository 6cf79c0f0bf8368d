package dev.tokensidecar;

import com.google.protobuf.Empty;
import com.google.protobuf.InvalidProtocolBufferException;
import io.grpc.CallOptions;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyChannelBuilder;
import io.grpc.netty.shaded.io.netty.channel.ChannelException;
import io.grpc.netty.shaded.io.netty.channel.ChannelOption;
import io.grpc.netty.shaded.io.netty.channel.EventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.socket.nio.NioDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.socket.nio.NioSocketChannel;
import io.grpc.protobuf.ProtoUtils;
import io.grpc.stub.ClientCalls;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.net.UnixDomainSocketAddress;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/** Makes a channel to one address. */
final class Dial {
    // What may be repeated on UNAVAILABLE, within the call's deadline: reads, and what carries a request id.
    private static final Map<String, ?> RETRIES = Map.of(
            "methodConfig",
            List.of(Map.of(
                    "name",
                    List.of(
                            method("TokenService", "Validate"),
                            method("TokenService", "BatchValidate"),
                            method("TokenService", "Rotate"),
                            method("AdminService", "ListKeys")),
                    "retryPolicy",
                    Map.of(
                            "maxAttempts",
                            3.0,
                            "initialBackoff",
                            "0.02s",
                            "maxBackoff",
                            "0.1s",
                            "backoffMultiplier",
                            2.0,
                            "retryableStatusCodes",
                            List.of("UNAVAILABLE")))));

    // grpc.health.v1; what matters is that gRPC answers, so the messages stay unread.
    private static final MethodDescriptor<Empty, Empty> HEALTH = MethodDescriptor.<Empty, Empty>newBuilder()
            .setType(MethodDescriptor.MethodType.UNARY)
            .setFullMethodName("grpc.health.v1.Health/Check")
            .setRequestMarshaller(ProtoUtils.marshaller(Empty.getDefaultInstance()))
            .setResponseMarshaller(ProtoUtils.marshaller(Empty.getDefaultInstance()))
            .build();

    private Dial() {}

    private static Map<String, String> method(String service, String name) {
        return Map.of("service", "tokensidecar.v1." + service, "method", name);
    }

    /** A channel that has answered a call; an IOException says why there is none. */
    static ManagedChannel ready(Address address, EventLoopGroup loop, Duration wait) throws IOException {
        ManagedChannel channel = channel(address, loop);
        boolean answered = false;
        try {
            CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(wait.toNanos(), TimeUnit.NANOSECONDS);
            ClientCalls.blockingUnaryCall(channel, HEALTH, options, Empty.getDefaultInstance());
            answered = true;
        } catch (StatusRuntimeException failure) {
            Status status = failure.getStatus();
            if (status.getCode() == Status.Code.DEADLINE_EXCEEDED) {
                throw new IOException("no answer in time", failure);
            }
            if (status.getCode() == Status.Code.CANCELLED) {
                throw TokenSidecarException.of(failure);
            }
            if (isOfTransport(status)) {
                throw new IOException(problem(status), failure);
            }
            answered = true; // any other status is an answer
        } finally {
            if (!answered) {
                channel.shutdownNow();
            }
        }
        return channel;
    }

    private static ManagedChannel channel(Address address, EventLoopGroup loop) {
        NettyChannelBuilder builder;
        if (address instanceof Address.Socket socket) {
            // The JDK's own Unix sockets: no native library that a read-only container could not unpack.
            builder = NettyChannelBuilder.forAddress(UnixDomainSocketAddress.of(socket.path()))
                    .channelFactory(() -> checked(socket), UnixDomainSocketAddress.class)
                    .withOption(ChannelOption.SO_KEEPALIVE, null); // gRPC sets it, and a Unix socket has none
        } else if (address instanceof Address.Tcp tcp) {
            builder = NettyChannelBuilder.forAddress(tcp.host(), tcp.port())
                    .channelFactory(NioSocketChannel::new, InetSocketAddress.class);
        } else {
            throw new AssertionError(address);
        }
        return builder.eventLoopGroup(loop)
                .usePlaintext()
                .overrideAuthority("localhost")
                .proxyDetector(target -> null)
                .disableServiceConfigLookUp()
                .defaultServiceConfig(RETRIES)
                .enableRetry()
                .userAgent("tokensidecar-java")
                .build();
    }

    /** Called for each new connection, at first and again after each loss. */
    private static NioDomainSocketChannel checked(Address.Socket socket) {
        if (socket.found()) {
            try {
                Owners.requireOwnSocket(socket.path(), Owners.user());
            } catch (IOException refused) {
                throw new ChannelException(refused);
            }
        }
        return new NioDomainSocketChannel();
    }

    /** Whether a status comes from no server: there is no connection, or it was lost. */
    static boolean isOfTransport(Status status) {
        Throwable cause = status.getCause();
        return switch (status.getCode()) {
            case CANCELLED, DEADLINE_EXCEEDED -> false;
            case UNAVAILABLE -> cause != null || "Network closed for unknown reason".equals(status.getDescription());
            default -> cause != null && !(cause instanceof InvalidProtocolBufferException);
        };
    }

    /** What the operating system said, without the address, which the caller knows. */
    static String problem(Status status) {
        Throwable deepest = status.getCause();
        while (deepest != null && deepest.getCause() != null) {
            deepest = deepest.getCause();
        }
        if (deepest == null) {
            return "it closed the connection";
        }
        if (!(deepest instanceof IOException)) {
            return "what listens there does not speak gRPC";
        }
        return String.valueOf(deepest.getMessage()).replaceFirst(": (/|[^ ]*:[0-9]+$).*", "");
    }
}
