package dev.tokensidecar;

import com.google.protobuf.Any;
import com.google.protobuf.Message;
import com.google.protobuf.Timestamp;
import com.google.rpc.ErrorInfo;
import dev.tokensidecar.v1.AdminServiceGrpc;
import dev.tokensidecar.v1.IssueResponse;
import dev.tokensidecar.v1.TokenServiceGrpc;
import dev.tokensidecar.v1.ValidateResponse;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.ServerServiceDefinition;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.netty.shaded.io.netty.channel.ChannelOption;
import io.grpc.netty.shaded.io.netty.channel.EventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.MultiThreadIoEventLoopGroup;
import io.grpc.netty.shaded.io.netty.channel.ServerChannel;
import io.grpc.netty.shaded.io.netty.channel.nio.NioIoHandler;
import io.grpc.netty.shaded.io.netty.channel.socket.nio.NioServerDomainSocketChannel;
import io.grpc.netty.shaded.io.netty.channel.socket.nio.NioServerSocketChannel;
import io.grpc.netty.shaded.io.netty.util.concurrent.DefaultThreadFactory;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.ServerCalls;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.SocketAddress;
import java.net.UnixDomainSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;

/**
 * A server of the contract whose answers the test gives. It stands in for a sidecar where a real one could not be made to
 * answer like that.
 */
final class Fake implements AutoCloseable {
    private static final AtomicInteger COUNT = new AtomicInteger();

    /** What each call came with. */
    record Seen(String method, Message request, String authority, long millisLeft) {}

    final List<Seen> seen = new CopyOnWriteArrayList<>();
    private final Map<String, Function<Message, Message>> answers = new ConcurrentHashMap<>();
    private Server server;
    private EventLoopGroup loop;
    private Path socket;
    String address;

    /** Answers a method, such as "Issue", with what the function gives or throws; UNIMPLEMENTED without one. */
    @SuppressWarnings("unchecked") // the method's name says what the request is
    <Q extends Message> Fake on(String method, Function<Q, Message> answer) {
        answers.put(method, request -> answer.apply((Q) request));
        return this;
    }

    /** Serves on a socket of its own. */
    Fake start() throws IOException {
        return start(freeSocket());
    }

    /** Serves on a socket, in the place of what served there. */
    Fake start(Path path) throws IOException {
        socket = path;
        address = "unix:" + path;
        Path made = Path.of(path + ".new");
        serve(UnixDomainSocketAddress.of(made), NioServerDomainSocketChannel.class);
        Files.move(made, path, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
        return this;
    }

    Fake startTcp() throws IOException {
        serve(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), NioServerSocketChannel.class);
        address = "127.0.0.1:" + server.getPort();
        return this;
    }

    private void serve(SocketAddress at, Class<? extends ServerChannel> type) throws IOException {
        loop = new MultiThreadIoEventLoopGroup(1, new DefaultThreadFactory("fake", true), NioIoHandler.newFactory());
        server = NettyServerBuilder.forAddress(at)
                .bossEventLoopGroup(loop)
                .workerEventLoopGroup(loop)
                .channelType(type)
                .withChildOption(ChannelOption.SO_KEEPALIVE, null) // a Unix socket has none
                .intercept(new Notes())
                .addService(service(
                        TokenServiceGrpc.getServiceDescriptor().getName(),
                        TokenServiceGrpc.getServiceDescriptor().getMethods()))
                .addService(service(
                        AdminServiceGrpc.getServiceDescriptor().getName(),
                        AdminServiceGrpc.getServiceDescriptor().getMethods()))
                .build()
                .start();
    }

    Client client() throws IOException {
        return client(new Options());
    }

    Client client(Options options) throws IOException {
        if (address == null) {
            start();
        }
        return Client.connect(options.withAddress(address));
    }

    Admin admin() throws IOException {
        if (address == null) {
            start();
        }
        return Admin.connect(new Options().withAddress(address));
    }

    int count(String method) {
        return (int) seen.stream().filter(call -> call.method().equals(method)).count();
    }

    /** Ends it as a sidecar ends: what is under way is finished, connections are closed. */
    void stop() throws InterruptedException {
        server.shutdown();
        if (!server.awaitTermination(5, TimeUnit.SECONDS)) {
            throw new AssertionError("the fake does not end");
        }
    }

    @Override
    public void close() throws IOException {
        server.shutdownNow();
        loop.shutdownGracefully(0, 1, TimeUnit.SECONDS);
        if (socket != null) {
            Files.deleteIfExists(socket);
        }
    }

    /** A path that is no other test's, short enough for a socket. */
    static Path freeSocket() {
        return Path.of("/tmp/ts-java-" + ProcessHandle.current().pid() + "-" + COUNT.incrementAndGet() + ".sock");
    }

    private ServerServiceDefinition service(String name, Iterable<MethodDescriptor<?, ?>> methods) {
        ServerServiceDefinition.Builder builder = ServerServiceDefinition.builder(name);
        methods.forEach(method -> add(builder, method));
        return builder.build();
    }

    private <Q, A> void add(ServerServiceDefinition.Builder builder, MethodDescriptor<Q, A> method) {
        builder.addMethod(method, ServerCalls.asyncUnaryCall((request, observer) -> {
            Function<Message, Message> answer = answers.get(method.getBareMethodName());
            if (answer == null) {
                observer.onError(Status.UNIMPLEMENTED
                        .withDescription("no answer was set")
                        .asRuntimeException());
                return;
            }
            try {
                @SuppressWarnings("unchecked")
                A message = (A) answer.apply((Message) request);
                observer.onNext(message);
                observer.onCompleted();
            } catch (StatusRuntimeException failure) {
                observer.onError(failure);
            }
        }));
    }

    private final class Notes implements ServerInterceptor {
        @Override
        public <Q, A> ServerCall.Listener<Q> interceptCall(
                ServerCall<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
            io.grpc.Deadline deadline = io.grpc.Context.current().getDeadline();
            long left = deadline == null ? -1 : deadline.timeRemaining(TimeUnit.MILLISECONDS);
            String method = call.getMethodDescriptor().getBareMethodName();
            return new io.grpc.ForwardingServerCallListener.SimpleForwardingServerCallListener<Q>(
                    next.startCall(call, headers)) {
                @Override
                public void onMessage(Q message) {
                    seen.add(new Seen(method, (Message) message, call.getAuthority(), left));
                    super.onMessage(message);
                }
            };
        }
    }

    /** An error as the sidecar's code answers it. */
    static StatusRuntimeException failure(Status.Code code, Reason reason, String message, Message... details) {
        com.google.rpc.Status.Builder status = com.google.rpc.Status.newBuilder()
                .setCode(code.value())
                .setMessage(message)
                .addDetails(Any.pack(ErrorInfo.newBuilder()
                        .setReason(reason.name())
                        .setDomain("tokensidecar")
                        .build()));
        for (Message detail : details) {
            status.addDetails(Any.pack(detail));
        }
        Metadata trailers = new Metadata();
        trailers.put(Metadata.Key.of("x-request-id", Metadata.ASCII_STRING_MARSHALLER), "r1");
        return StatusProto.toStatusRuntimeException(status.build(), trailers);
    }

    static Timestamp time(long seconds) {
        return Timestamp.newBuilder().setSeconds(seconds).build();
    }

    /** A token of five minutes. */
    static IssueResponse issued(String token) {
        return IssueResponse.newBuilder()
                .setToken(token)
                .setIssueTime(time(1_000))
                .setExpireTime(time(1_300))
                .build();
    }

    static ValidateResponse validated(String subject, String claims) {
        return ValidateResponse.newBuilder()
                .setSubject(subject)
                .setClaimsJson(claims)
                .setIssueTime(time(1_000))
                .setExpireTime(time(1_300))
                .build();
    }
}
