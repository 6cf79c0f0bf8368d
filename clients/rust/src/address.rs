//! Where a sidecar may be, and whether what is found there may be trusted.

use std::{
    fmt, fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};

use crate::Error;

/// One of the two sides of a sidecar: where it is looked for.
pub(crate) struct Plane {
    variable: &'static str,
    /// Below a runtime directory.
    socket: &'static str,
    tcp: &'static str,
}

pub(crate) const APP: Plane = Plane {
    variable: "TOKENSIDECAR_ADDRESS",
    socket: "app/app.sock",
    tcp: "127.0.0.1:8790",
};

pub(crate) const ADMIN: Plane = Plane {
    variable: "TOKENSIDECAR_ADMIN_ADDRESS",
    socket: "admin/admin.sock",
    tcp: "127.0.0.1:8791",
};

impl Plane {
    /// Where to try: what the option or the environment names and nothing else, or else every default.
    pub(crate) fn addresses(
        &self,
        given: Option<&str>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Vec<Address>, Error> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        if let Some(text) = given {
            return Ok(vec![Address::parse(text, "address")?]);
        }
        if let Some(text) = set(self.variable) {
            return Ok(vec![Address::parse(&text, self.variable)?]);
        }
        let mut all: Vec<Address> = runtime_directories(set)
            .into_iter()
            .map(|directory| Address::Socket {
                path: directory.join(self.socket),
                found: true,
            })
            .collect();
        all.push(Address::Tcp(self.tcp.into()));
        Ok(all)
    }
}

/// Where a sidecar may have put its sockets, in the order in which it chooses.
fn runtime_directories(set: impl Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    if let Some(configured) = set("TOKENSIDECAR_RUNTIME_DIR") {
        return vec![configured.into()];
    }
    let mut directories = vec![PathBuf::from("/run/tokensidecar")];
    if let Some(xdg) = set("XDG_RUNTIME_DIR") {
        directories.push(Path::new(&xdg).join("tokensidecar"));
    }
    directories.push(format!("/tmp/tokensidecar-{}", user()).into());
    directories
}

/// The real user id of this process.
fn user() -> u32 {
    #[allow(unsafe_code)]
    // SAFETY: getuid takes nothing, touches no memory and cannot fail (POSIX).
    unsafe {
        libc::getuid()
    }
}

/// One place to dial.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Address {
    Socket {
        path: PathBuf,
        /// Nobody named it: then its owner must be root or this user.
        found: bool,
    },
    /// host:port
    Tcp(String),
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

impl Address {
    /// Reads `unix:/path`, `unix:///path` or `host:port`; `source` is who gave it.
    fn parse(text: &str, source: &str) -> Result<Self, Error> {
        let refuse = |problem: &str| Error::refused(source, format!("{text:?} {problem}"));
        if let Some(rest) = text.strip_prefix("unix:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(refuse("is no address: the path of a socket starts with /"));
            }
            return Ok(Self::Socket {
                path: path.into(),
                found: false,
            });
        }
        let host_and_port = text.rsplit_once(':').filter(|(host, port)| {
            let bracketed = host.starts_with('[') && host.ends_with(']');
            !host.is_empty() && (bracketed || !host.contains(':')) && port.parse::<u16>().is_ok()
        });
        match host_and_port {
            Some(_) => Ok(Self::Tcp(text.into())),
            None => Err(refuse("is none of unix:/path, unix:///path, host:port")),
        }
    }

    /// Connects, at first and again after each loss.
    pub(crate) async fn dial(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Socket { path, found } => {
                if *found {
                    require_own_socket(path, user())?;
                }
                Ok(Box::new(UnixStream::connect(path).await?))
            }
            Self::Tcp(name) => {
                let stream = TcpStream::connect(name).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket { path, .. } => write!(f, "unix:{}", path.display()),
            Self::Tcp(name) => f.write_str(name),
        }
    }
}

/// Refuses what anybody may have put at a place that nobody named, such as one in /tmp: the socket, its directory and
/// the runtime directory must belong to root or the user.
fn require_own_socket(path: &Path, user: u32) -> io::Result<()> {
    let socket = fs::symlink_metadata(path)?;
    if !socket.file_type().is_socket() {
        return Err(io::Error::other("not a socket"));
    }
    let mut owners = vec![socket.uid()];
    for directory in path.ancestors().skip(1).take(2) {
        owners.push(fs::metadata(directory)?.uid());
    }
    if owners.iter().any(|owner| *owner != 0 && *owner != user) {
        return Err(io::Error::other("belongs to another user: name it if that is right"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs::Permissions, os::unix::fs as unix, os::unix::fs::PermissionsExt as _, os::unix::net::UnixListener};

    use super::*;

    fn environment<'a>(values: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| {
            values
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        }
    }

    fn texts(plane: &Plane, given: Option<&str>, values: &[(&str, &str)]) -> Vec<String> {
        let addresses = plane.addresses(given, environment(values)).unwrap();
        addresses.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn addresses_are_read_in_three_forms() {
        for (text, want) in [
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("unix:///run/x.sock", "unix:/run/x.sock"),
            ("127.0.0.1:8790", "127.0.0.1:8790"),
            ("localhost:8790", "localhost:8790"),
            ("[::1]:8790", "[::1]:8790"),
        ] {
            assert_eq!(texts(&APP, Some(text), &[]), [want]);
        }
        for text in [
            "",
            "unix:",
            "unix:app.sock",
            "unix://host/x.sock",
            "localhost",
            ":8790",
            "127.0.0.1:",
            "::1:8790",
            "127.0.0.1:http",
            "http://127.0.0.1:8790",
        ] {
            let error = APP.addresses(Some(text), environment(&[])).unwrap_err();
            assert!(matches!(error, Error::InvalidRequest { .. }), "{text:?}: {error}");
        }
    }

    #[test]
    fn defaults_are_tried_in_the_servers_order() {
        let values = [
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("TOKENSIDECAR_ADDRESS", ""),
            ("TOKENSIDECAR_RUNTIME_DIR", ""),
        ];
        let own = format!("unix:/tmp/tokensidecar-{}", user());
        assert_eq!(
            texts(&APP, None, &values),
            [
                "unix:/run/tokensidecar/app/app.sock",
                "unix:/run/user/7/tokensidecar/app/app.sock",
                &format!("{own}/app/app.sock"),
                "127.0.0.1:8790"
            ]
        );
        assert_eq!(
            texts(&ADMIN, None, &[]),
            [
                "unix:/run/tokensidecar/admin/admin.sock",
                &format!("{own}/admin/admin.sock"),
                "127.0.0.1:8791"
            ]
        );
    }

    #[test]
    fn configured_runtime_directory_is_the_only_one() {
        let values = [
            ("XDG_RUNTIME_DIR", "/run/user/7"),
            ("TOKENSIDECAR_RUNTIME_DIR", "/srv/sidecar"),
        ];
        assert_eq!(
            texts(&APP, None, &values),
            ["unix:/srv/sidecar/app/app.sock", "127.0.0.1:8790"]
        );
    }

    #[test]
    fn environment_names_the_only_address_and_the_option_comes_first() {
        let values = [
            ("TOKENSIDECAR_ADDRESS", "unix:/a.sock"),
            ("TOKENSIDECAR_ADMIN_ADDRESS", "nonsense"),
        ];
        assert_eq!(texts(&APP, None, &values), ["unix:/a.sock"]);
        assert_eq!(texts(&APP, Some("127.0.0.1:1"), &values), ["127.0.0.1:1"]);
        let error = ADMIN.addresses(None, environment(&values)).unwrap_err();
        assert!(error.to_string().contains("TOKENSIDECAR_ADMIN_ADDRESS"), "{error}");
    }

    #[test]
    fn what_another_user_may_have_put_there_is_not_taken() {
        let runtime = std::env::temp_dir().join(format!("ts-own-{}", std::process::id()));
        let app = runtime.join("app");
        fs::create_dir_all(&app).unwrap();
        fs::set_permissions(&runtime, Permissions::from_mode(0o700)).unwrap();
        let socket = app.join("app.sock");
        let _listener = UnixListener::bind(&socket).unwrap();

        require_own_socket(&socket, user()).unwrap();
        if user() == 0 {
            for entry in [&socket, &app, &runtime] {
                unix::chown(entry, Some(4711), None).unwrap();
                require_own_socket(&socket, 4712).unwrap_err();
                require_own_socket(&socket, 4711).unwrap();
                unix::chown(entry, Some(0), None).unwrap();
                require_own_socket(&socket, 4712).unwrap();
            }
        } else {
            // Who cannot give things away lets another user look.
            let error = require_own_socket(&socket, user() + 1).unwrap_err();
            assert!(error.to_string().contains("another user"));
        }
        let link = app.join("link.sock");
        unix::symlink(&socket, &link).unwrap();
        assert_eq!(
            require_own_socket(&link, user()).unwrap_err().to_string(),
            "not a socket"
        );
        fs::remove_dir_all(&runtime).unwrap();
    }
}
