package dev.tokensidecar;

import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** One place to dial. */
sealed interface Address {

    /**
     * A Unix socket.
     *
     * @param path absolute
     * @param found nobody named it: then its owner must be root or this user
     */
    record Socket(Path path, boolean found) implements Address {
        @Override
        public String toString() {
            return "unix:" + path;
        }
    }

    /**
     * A TCP port.
     *
     * @param host name or address, an IPv6 one without its brackets
     * @param port 0 to 65535
     */
    record Tcp(String host, int port) implements Address {
        @Override
        public String toString() {
            return (host.contains(":") ? "[" + host + "]" : host) + ":" + port;
        }
    }

    /** [host]:port, or host:port. */
    Pattern HOST_PORT = Pattern.compile("(?:\\[([0-9A-Fa-f:.%\\w]+)]|([^\\s:/\\[\\]]+)):([0-9]{1,5})");

    /** Reads {@code unix:/path}, {@code unix:///path} or {@code host:port}; {@code source} is who gave it. */
    static Address parse(String text, String source) {
        if (text.startsWith("unix:")) {
            String path = text.substring("unix:".length());
            if (path.startsWith("///")) {
                path = path.substring("//".length());
            }
            if (!path.startsWith("/") || path.startsWith("//") || path.indexOf('\0') >= 0) {
                throw TokenSidecarException.refused(
                        source, "\"" + text + "\" is no address: the path of a socket starts with /");
            }
            return new Socket(Path.of(path), false);
        }
        Matcher matcher = HOST_PORT.matcher(text);
        if (!matcher.matches() || Integer.parseInt(matcher.group(3)) > 65535) {
            throw TokenSidecarException.refused(
                    source, "\"" + text + "\" is none of unix:/path, unix:///path, host:port");
        }
        String host = matcher.group(1) != null ? matcher.group(1) : matcher.group(2);
        return new Tcp(host, Integer.parseInt(matcher.group(3)));
    }
}
