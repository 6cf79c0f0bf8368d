package dev.tokensidecar;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tokensidecar.v1.TokenServiceGrpc;
import io.grpc.Status;
import java.io.IOException;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.logging.Handler;
import java.util.logging.Level;
import java.util.logging.LogRecord;
import java.util.logging.Logger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** To find a sidecar, to lose it and to find it again. */
@Timeout(60)
class ConnectTest {
    private static final ValidateRequest ASK = ValidateRequest.of("t", "orders");
    private static final IssueRequest WANT = IssueRequest.of("ada", "orders");

    private static Fake good() {
        return new Fake()
                .on("Issue", request -> Fake.issued("t"))
                .on("Validate", request -> Fake.validated("ada", "{}"));
    }

    private static ServerSocket listen() throws IOException {
        return new ServerSocket(0, 50, InetAddress.getLoopbackAddress());
    }

    @Test
    void errorListsAllThatWereTried(@TempDir Path directory) throws IOException {
        Path file = Files.writeString(directory.resolve("app.sock"), "");
        int closed;
        try (ServerSocket listener = listen()) {
            closed = listener.getLocalPort();
        }
        List<Address> addresses = List.of(
                new Address.Socket(directory.resolve("none.sock"), true),
                new Address.Socket(directory.resolve("named.sock"), false),
                new Address.Socket(file, true),
                new Address.Tcp("127.0.0.1", closed));
        UnavailableException error = assertThrows(
                UnavailableException.class, () -> Connection.firstReady(addresses, Duration.ofMillis(300)));
        for (String part : List.of(
                "unix:" + directory + "/none.sock (no such file or directory)",
                "unix:" + directory + "/named.sock (No such file or directory)",
                "unix:" + directory + "/app.sock (not a socket)",
                "127.0.0.1:" + closed + " (Connection refused)")) {
            assertTrue(error.getMessage().contains(part), part + " is not in " + error.getMessage());
        }
    }

    @Test
    void firstAddressThatAnswersIsTaken() throws IOException {
        try (Fake fake = good().start()) {
            List<Address> addresses = List.of(
                    new Address.Socket(Path.of("/tmp/ts-java-none.sock"), true),
                    Address.parse(fake.address, "address"));
            Connection.firstReady(addresses, Duration.ofSeconds(5)).close();
        }
    }

    @Test
    void listenerThatDoesNotSpeakGrpcIsNoSidecar() throws IOException {
        try (ServerSocket listener = listen()) {
            Thread server = new Thread(() -> {
                while (true) {
                    try (Socket socket = listener.accept()) {
                        socket.getOutputStream()
                                .write("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
                                        .getBytes(StandardCharsets.US_ASCII));
                        socket.getInputStream().readAllBytes(); // until the client has had enough
                    } catch (IOException closed) {
                        return;
                    }
                }
            });
            server.setDaemon(true);
            server.start();
            Options options = new Options()
                    .withAddress("127.0.0.1:" + listener.getLocalPort())
                    .withStartTimeout(Duration.ofMillis(300));
            UnavailableException error = assertThrows(UnavailableException.class, () -> Client.connect(options));
            assertTrue(error.getMessage().contains("does not speak gRPC"), error.getMessage());
        }
    }

    @Test
    void waitEndsWithItsBoundAndWithAnInterrupt() throws Exception {
        try (ServerSocket silent = listen()) { // takes connections into its backlog
            Options options = new Options().withAddress("127.0.0.1:" + silent.getLocalPort());
            long start = System.nanoTime();
            UnavailableException error = assertThrows(
                    UnavailableException.class, () -> Client.connect(options.withStartTimeout(Duration.ofMillis(150))));
            assertTrue(error.getMessage().contains("no answer in time"), error.getMessage());
            assertTrue(System.nanoTime() - start < TimeUnit.SECONDS.toNanos(5));

            CompletableFuture<Throwable> ended = new CompletableFuture<>();
            Thread waiting = new Thread(
                    () -> ended.complete(assertThrows(CancelledException.class, () -> Client.connect(options))));
            waiting.start();
            Thread.sleep(50);
            waiting.interrupt();
            assertInstanceOf(CancelledException.class, ended.get(5, TimeUnit.SECONDS));
        }
    }

    @Test
    void sidecarThatIsStillStartingIsWaitedFor() throws Exception {
        Path socket = Fake.freeSocket();
        CompletableFuture<Fake> started = CompletableFuture.supplyAsync(
                () -> {
                    try {
                        return good().start(socket);
                    } catch (IOException failure) {
                        throw new AssertionError(failure);
                    }
                },
                CompletableFuture.delayedExecutor(200, TimeUnit.MILLISECONDS));
        try (Client client = Client.connect(new Options().withAddress("unix:" + socket))) {
            assertEquals("ada", client.validate(ASK).subject());
        }
        started.get().close();
    }

    @Test
    void authorityIsLocalhostOverSocketAndTcp() throws IOException {
        try (Fake socket = good().start();
                Fake tcp = good().startTcp()) {
            for (Fake fake : List.of(socket, tcp)) {
                try (Client client = fake.client()) {
                    client.validate(ASK);
                    assertEquals("localhost", fake.seen.get(0).authority());
                }
            }
        }
    }

    @Test
    void firstCallAfterTheReturnOfTheSidecarSucceeds() throws Exception {
        Path socket = Fake.freeSocket();
        Fake first = good().start(socket);
        try (Client client = first.client()) {
            client.issue(WANT);
            first.stop();
            Files.delete(socket);
            for (int i = 0; i < 10; i++) { // gRPC's own pause between two connections grows by now to seconds
                long start = System.nanoTime();
                UnavailableException error = assertThrows(UnavailableException.class, () -> client.issue(WANT));
                assertTrue(System.nanoTime() - start < TimeUnit.MILLISECONDS.toNanos(900), "not before the deadline");
                assertTrue(error.getMessage().contains("No such file or directory"), error.getMessage());
            }
            try (Fake second = good().start(socket)) {
                client.issue(WANT);
                assertEquals(1, second.count("Issue"));
            }
            first.close();
        }
    }

    @Test
    void asyncCallFindsTheSidecarAgainToo() throws Exception {
        Path socket = Fake.freeSocket();
        Fake first = good().start(socket);
        try (Client client = first.client()) {
            first.stop();
            Files.delete(socket);
            for (int i = 0; i < 3; i++) {
                ExecutionException error = assertThrows(
                        ExecutionException.class, () -> client.issueAsync(WANT).get());
                assertInstanceOf(UnavailableException.class, error.getCause());
            }
            try (Fake second = good().start(socket)) {
                assertEquals("t", client.issueAsync(WANT).get().token());
                assertEquals(1, second.count("Issue"));
            }
            first.close();
        }
    }

    @Test
    void socketThatNobodyNamedIsJudgedAgainAtEachConnection(@TempDir Path runtime) throws Exception {
        Path socket = Files.createDirectory(runtime.resolve("app")).resolve("app.sock");
        Fake first = good().start(socket);
        try (Connection connection =
                        Connection.firstReady(List.of(new Address.Socket(socket, true)), Duration.ofSeconds(5));
                Fake other = good().start()) {
            first.stop();
            Files.deleteIfExists(socket);
            Files.createSymbolicLink(socket, Path.of(other.address.substring("unix:".length())));
            UnavailableException error = assertThrows(
                    UnavailableException.class,
                    () -> connection.call(TokenServiceGrpc.getIssueMethod(), WANT.message(), Duration.ofSeconds(5)));
            assertTrue(error.getMessage().contains("not a socket"), error.getMessage());
            assertEquals(0, other.count("Issue"));
        }
        first.close();
    }

    private static void copy(Socket from, Socket to) {
        Thread thread = new Thread(() -> {
            try {
                from.getInputStream().transferTo(to.getOutputStream());
            } catch (IOException closed) {
                return; // it is cut
            }
        });
        thread.setDaemon(true);
        thread.start();
    }

    @Test
    void connectionThatIsCutUnderACallIsUnavailableAndNothingIsIssuedTwice() throws Exception {
        CountDownLatch over = new CountDownLatch(1);
        Fake hanging = new Fake().on("Issue", request -> {
            try {
                assertTrue(over.await(30, TimeUnit.SECONDS));
            } catch (InterruptedException ended) {
                throw Status.INTERNAL.asRuntimeException();
            }
            return Fake.issued("t");
        });
        try (Fake fake = hanging.startTcp();
                ServerSocket wire = listen()) {
            int port = Integer.parseInt(fake.address.split(":")[1]);
            CompletableFuture<Socket> near = CompletableFuture.supplyAsync(() -> {
                try {
                    Socket accepted = wire.accept();
                    Socket far = new Socket(InetAddress.getLoopbackAddress(), port);
                    copy(accepted, far);
                    copy(far, accepted);
                    return accepted;
                } catch (IOException failure) {
                    throw new AssertionError(failure);
                }
            });
            Options options = new Options()
                    .withAddress("127.0.0.1:" + wire.getLocalPort())
                    .withTimeout(Duration.ofSeconds(30));
            try (Client client = Client.connect(options)) {
                CompletableFuture<IssuedToken> token = client.issueAsync(WANT);
                while (fake.count("Issue") == 0) {
                    Thread.sleep(1);
                }
                near.get().close();
                ExecutionException error = assertThrows(ExecutionException.class, () -> token.get(5, TimeUnit.SECONDS));
                assertInstanceOf(UnavailableException.class, error.getCause());
                assertEquals(1, fake.count("Issue"));
            }
        } finally {
            over.countDown();
        }
    }

    @Test
    void noValidateIsLostWhileAnotherSidecarTakesOver() throws Exception {
        Path socket = Fake.freeSocket();
        Fake running = good().start(socket);
        AtomicBoolean over = new AtomicBoolean();
        try (Client client = running.client()) {
            List<CompletableFuture<Void>> callers = new ArrayList<>();
            for (int i = 0; i < 4; i++) {
                callers.add(CompletableFuture.runAsync(
                        () -> {
                            while (!over.get()) {
                                client.validate(ASK);
                                client.issue(WANT);
                            }
                        },
                        task -> new Thread(task).start()));
            }
            for (int i = 0; i < 10; i++) {
                Fake next = good().start(socket);
                running.stop();
                running = next;
                Thread.sleep(50);
            }
            over.set(true);
            for (CompletableFuture<Void> caller : callers) {
                caller.get(10, TimeUnit.SECONDS);
            }
        }
        running.close();
    }

    @Test
    void connectionsLeaveNoWarningInTheLog() throws Exception {
        List<String> warnings = new ArrayList<>();
        Handler handler = new Handler() {
            @Override
            public void publish(LogRecord entry) {
                if (entry.getLevel().intValue() >= Level.WARNING.intValue()) {
                    warnings.add(entry.getMessage());
                }
            }

            @Override
            public void flush() {}

            @Override
            public void close() {}
        };
        Logger root = Logger.getLogger("io.grpc");
        root.addHandler(handler);
        try (Fake socket = good().start();
                Fake tcp = good().startTcp()) {
            for (Fake fake : List.of(socket, tcp)) {
                try (Client client = fake.client()) {
                    client.validate(ASK);
                }
            }
        } finally {
            root.removeHandler(handler);
        }
        assertEquals(List.of(), warnings);
    }
}
