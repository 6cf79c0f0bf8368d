package dev.tokensidecar;

import static org.junit.jupiter.api.Assertions.assertDoesNotThrow;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.StandardProtocolFamily;
import java.net.UnixDomainSocketAddress;
import java.nio.channels.ServerSocketChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.OptionalInt;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Where a sidecar is looked for, and whose sockets are taken. */
class AddressTest {
    private static List<String> texts(Plane plane, String given, Map<String, String> environment) {
        return plane.addresses(given, environment::get).stream()
                .map(Address::toString)
                .toList();
    }

    @ParameterizedTest
    @CsvSource({
        "unix:/run/x.sock, unix:/run/x.sock",
        "unix:///run/x.sock, unix:/run/x.sock",
        "127.0.0.1:8790, 127.0.0.1:8790",
        "localhost:8790, localhost:8790",
        "[::1]:8790, [::1]:8790",
    })
    void addressesAreReadInThreeForms(String text, String want) {
        assertEquals(List.of(want), texts(Plane.APP, text, Map.of()));
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "",
                "unix:",
                "unix:app.sock",
                "unix://host/x.sock",
                "localhost",
                ":8790",
                "127.0.0.1:",
                "::1:8790",
                "127.0.0.1:http",
                "127.0.0.1:65536",
                "http://127.0.0.1:8790"
            })
    void otherAddressesAreRefused(String text) {
        InvalidRequestException error =
                assertThrows(InvalidRequestException.class, () -> texts(Plane.APP, text, Map.of()));
        assertEquals("address", error.fields().get(0).name());
    }

    @Test
    void defaultsAreTriedInTheServersOrder() throws IOException {
        Map<String, String> environment =
                Map.of("XDG_RUNTIME_DIR", "/run/user/7", "TOKENSIDECAR_ADDRESS", "", "TOKENSIDECAR_RUNTIME_DIR", "");
        Object user = Files.getAttribute(Path.of("/proc/self"), "unix:uid");
        assertEquals(
                List.of(
                        "unix:/run/tokensidecar/app/app.sock",
                        "unix:/run/user/7/tokensidecar/app/app.sock",
                        "unix:/tmp/tokensidecar-" + user + "/app/app.sock",
                        "127.0.0.1:8790"),
                texts(Plane.APP, null, environment));
        assertEquals(
                List.of(
                        "unix:/run/tokensidecar/admin/admin.sock",
                        "unix:/tmp/tokensidecar-" + user + "/admin/admin.sock",
                        "127.0.0.1:8791"),
                texts(Plane.ADMIN, null, Map.of()));
    }

    @Test
    void configuredRuntimeDirectoryIsTheOnlyOne() {
        Map<String, String> environment =
                Map.of("XDG_RUNTIME_DIR", "/run/user/7", "TOKENSIDECAR_RUNTIME_DIR", "/srv/sidecar");
        assertEquals(List.of("unix:/srv/sidecar/app/app.sock", "127.0.0.1:8790"), texts(Plane.APP, null, environment));
    }

    @Test
    void variableNamesTheOnlyAddress() {
        Map<String, String> environment =
                Map.of("TOKENSIDECAR_ADDRESS", "unix:/a.sock", "TOKENSIDECAR_ADMIN_ADDRESS", "nonsense");
        assertEquals(List.of("unix:/a.sock"), texts(Plane.APP, null, environment));
        assertEquals(List.of("unix:/b.sock"), texts(Plane.APP, "unix:/b.sock", environment));
        InvalidRequestException error =
                assertThrows(InvalidRequestException.class, () -> texts(Plane.ADMIN, null, environment));
        assertTrue(error.getMessage().contains("TOKENSIDECAR_ADMIN_ADDRESS"), error.getMessage());
    }

    private static void owned(Path path, OptionalInt user, boolean taken) {
        if (taken) {
            assertDoesNotThrow(() -> Owners.requireOwnSocket(path, user));
        } else {
            IOException error = assertThrows(IOException.class, () -> Owners.requireOwnSocket(path, user));
            assertTrue(error.getMessage().contains("another user"), error.getMessage());
        }
    }

    @Test
    void whatAnotherUserMayHavePutThereIsNotTaken(@TempDir Path runtime) throws IOException {
        Path app = Files.createDirectory(runtime.resolve("app"));
        Path socket = app.resolve("app.sock");
        try (ServerSocketChannel server = ServerSocketChannel.open(StandardProtocolFamily.UNIX)) {
            server.bind(UnixDomainSocketAddress.of(socket));
            OptionalInt user = Owners.user();
            owned(socket, user, true);
            if (user.getAsInt() == 0) {
                for (Path entry : List.of(socket, app, runtime)) {
                    Files.setAttribute(entry, "unix:uid", 4711);
                    owned(socket, OptionalInt.of(4712), false);
                    owned(socket, OptionalInt.empty(), false);
                    owned(socket, OptionalInt.of(4711), true);
                    Files.setAttribute(entry, "unix:uid", 0);
                    owned(socket, OptionalInt.of(4712), true);
                }
            } else { // who cannot give things away lets another user look
                owned(socket, OptionalInt.of(user.getAsInt() + 1), false);
                owned(socket, OptionalInt.empty(), false);
            }
            Path link = Files.createSymbolicLink(app.resolve("link.sock"), socket);
            IOException error = assertThrows(IOException.class, () -> Owners.requireOwnSocket(link, user));
            assertEquals("not a socket", error.getMessage());
        }
    }
}
