package dev.tokensidecar;

import com.sun.security.auth.module.UnixSystem;
import java.io.IOException;
import java.nio.file.AccessDeniedException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.OptionalInt;

/** Whom a socket belongs to. */
final class Owners {
    private static final int FILE_TYPE = 0170000; // S_IFMT
    private static final int SOCKET = 0140000; // S_IFSOCK

    private Owners() {}

    /** The user id of this process; nothing where the machine does not tell. */
    static OptionalInt user() {
        try {
            return OptionalInt.of(owner(Path.of("/proc/self"))); // Java has no getuid; on Linux this needs no module
        } catch (IOException | UnsupportedOperationException | IllegalArgumentException noProc) {
            try {
                return OptionalInt.of((int) new UnixSystem().getUid());
            } catch (LinkageError withoutModule) {
                return OptionalInt.empty();
            }
        }
    }

    /**
     * Refuses what anybody may have put at a place that nobody named, such as one in /tmp: the socket, its directory and
     * the runtime directory must belong to root or the user.
     */
    static void requireOwnSocket(Path path, OptionalInt user) throws IOException {
        try {
            int mode = (int) Files.getAttribute(path, "unix:mode", LinkOption.NOFOLLOW_LINKS);
            if ((mode & FILE_TYPE) != SOCKET) {
                throw new IOException("not a socket");
            }
            Path directory = path.getParent();
            int[] owners = {
                owner(path, LinkOption.NOFOLLOW_LINKS), owner(directory), owner(directory.getParent()),
            };
            for (int owner : owners) {
                if (owner != 0 && (user.isEmpty() || owner != user.getAsInt())) {
                    throw new IOException("belongs to another user: name it if that is right");
                }
            }
        } catch (NoSuchFileException none) { // which says nothing but the path
            throw new IOException("no such file or directory");
        } catch (AccessDeniedException denied) {
            throw new IOException("permission denied");
        } catch (UnsupportedOperationException | IllegalArgumentException unknown) {
            throw new IOException("its owner is not to be told on this system: name it");
        }
    }

    private static int owner(Path path, LinkOption... options) throws IOException {
        return (int) Files.getAttribute(path, "unix:uid", options);
    }
}
