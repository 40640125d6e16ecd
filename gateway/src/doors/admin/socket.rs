//! The socket: the data folder's owner's alone from its first instant on.

use std::{
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

use crate::{store::DataFolder, web::Listener};

/// The socket's name in the data folder.
pub(super) const SOCKET: &str = "acmegate.sock";
/// Its name until it may be connected to; not longer than [`SOCKET`].
const UNFINISHED: &str = "acmegate.new";
/// Connections that wait while we are busy.
const BACKLOG: i32 = 128;

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The system takes at most 107 bytes (`sun_path` of unix(7)).
    #[error(
        "the path of the admin socket {} has {} bytes, and the system takes 107: give acmegate a data folder with a shorter path",
        .0.display(), .0.as_os_str().len()
    )]
    TooLong(PathBuf),
    /// Anything else that the system says.
    #[error("the admin socket {} cannot be made: {source}", path.display())]
    Failed {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// The bound socket; its file goes with this value.
#[derive(Debug)]
pub struct AdminSocket {
    path: PathBuf,
}

impl AdminSocket {
    /// Makes the socket in a data folder that this process holds, so that whatever socket lies there belongs to nobody. Call it inside the runtime.
    ///
    /// # Errors
    /// As [`AdminError`] says.
    pub fn bind(folder: &DataFolder) -> Result<(Self, Listener), AdminError> {
        let path = folder.path().join(SOCKET);
        if path.as_os_str().len() > 107 {
            return Err(AdminError::TooLong(path));
        }
        match listen(&folder.path().join(UNFINISHED), &path) {
            Ok(listener) => Ok((Self { path }, Listener::Unix(listener))),
            Err(source) => Err(AdminError::Failed { path, source }),
        }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        // A file that stays behind is replaced by the next start.
        let _ = fs::remove_file(&self.path);
    }
}

/// The socket gets its mode before it listens and its name after, so that at no instant anybody else can connect.
fn listen(unfinished: &Path, path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(unfinished)?)?;
    fs::set_permissions(unfinished, Permissions::from_mode(0o600))?;
    socket.listen(BACKLOG)?;
    fs::rename(unfinished, path)?;
    UnixListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_socket_is_the_owners_alone_and_goes_with_its_value() {
        let folder = tempfile::tempdir().expect("folder");
        let data = DataFolder::open(folder.path()).expect("data folder");
        // What a killed process leaves behind.
        drop(std::os::unix::net::UnixListener::bind(data.path().join(SOCKET)).expect("stale socket"));
        let (socket, _listener) = AdminSocket::bind(&data).expect("bound");
        assert_eq!(fs::metadata(socket.path()).expect("there").permissions().mode() & 0o777, 0o600);
        tokio::net::UnixStream::connect(socket.path()).await.expect("connected");
        let path = socket.path().to_owned();
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_path_that_is_too_long_is_said() {
        let folder = tempfile::tempdir().expect("folder");
        let data = DataFolder::open(&folder.path().join("x".repeat(90))).expect("data folder");
        let error = AdminSocket::bind(&data).expect_err("too long");
        assert!(matches!(error, AdminError::TooLong(_)), "{error}");
        assert!(error.to_string().contains("shorter path"), "{error}");
    }
}
