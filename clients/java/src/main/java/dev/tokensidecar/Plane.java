package dev.tokensidecar;

import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.OptionalInt;
import java.util.function.Function;

/** One of the two sides of a sidecar: where it is looked for. */
enum Plane {
    APP("TOKENSIDECAR_ADDRESS", "app/app.sock", 8790),
    ADMIN("TOKENSIDECAR_ADMIN_ADDRESS", "admin/admin.sock", 8791);

    private final String variable;
    private final String socket; // below a runtime directory
    private final int port;

    Plane(String variable, String socket, int port) {
        this.variable = variable;
        this.socket = socket;
        this.port = port;
    }

    /** Where to try: what the option or the environment names and nothing else, or else every default. */
    List<Address> addresses(String given, Function<String, String> environment) {
        if (given != null) {
            return List.of(Address.parse(given, "address"));
        }
        String named = environment.apply(variable);
        if (isSet(named)) {
            return List.of(Address.parse(named, variable));
        }
        List<Address> all = new ArrayList<>();
        for (Path directory : runtimeDirectories(environment)) {
            all.add(new Address.Socket(directory.resolve(socket), true));
        }
        all.add(new Address.Tcp("127.0.0.1", port));
        return all;
    }

    /** Where a sidecar may have put its sockets, in the order in which it chooses. */
    private static List<Path> runtimeDirectories(Function<String, String> environment) {
        String configured = environment.apply("TOKENSIDECAR_RUNTIME_DIR");
        if (isSet(configured)) {
            return List.of(Path.of(configured));
        }
        List<Path> directories = new ArrayList<>();
        directories.add(Path.of("/run/tokensidecar"));
        String xdg = environment.apply("XDG_RUNTIME_DIR");
        if (isSet(xdg)) {
            directories.add(Path.of(xdg, "tokensidecar"));
        }
        OptionalInt user = Owners.user();
        if (user.isPresent()) {
            directories.add(Path.of("/tmp/tokensidecar-" + Integer.toUnsignedString(user.getAsInt())));
        }
        return directories;
    }

    private static boolean isSet(String value) {
        return value != null && !value.isEmpty();
    }
}
