//! A real `redis-server` on a Unix socket of its own: started, frozen, killed, flushed, started again.
//!
//! Speaks to it over plain sockets, so that a test sees what stands there with other eyes than the server's.

use super::dir::Dir;
use super::{process, wait};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// See the module.
#[derive(Debug)]
pub(crate) struct Redis {
    dir: Dir,
    child: Child,
    password: Option<String>,
}

impl Redis {
    pub(crate) fn start() -> Self {
        Self::launch(Dir::new(), None)
    }

    pub(crate) fn with_password(password: &str) -> Self {
        Self::launch(Dir::new(), Some(password.to_owned()))
    }

    fn launch(dir: Dir, password: Option<String>) -> Self {
        let child = spawn(&dir, password.as_deref());
        let redis = Self { dir, child, password };
        wait::until("a Redis that answers", || redis.try_call(&["PING"]).is_some());
        redis
    }

    /// What `redis.url` is to be.
    pub(crate) fn url(&self) -> String {
        format!("unix://{}", socket(&self.dir).display())
    }

    /// A command and its answer as text, the parts of a list by lines.
    pub(crate) fn call(&self, words: &[&str]) -> String {
        self.try_call(words).unwrap_or_else(|| panic!("Redis does not answer {words:?}"))
    }

    /// Whether there is such a key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.call(&["EXISTS", key]) == "1"
    }

    /// Kills it; what it held is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("our own child");
        self.child.wait().expect("our own child");
    }

    /// Starts it again, at the same place.
    pub(crate) fn start_again(&mut self) {
        self.child = spawn(&self.dir, self.password.as_deref());
        wait::until("a Redis that answers again", || self.try_call(&["PING"]).is_some());
    }

    /// It takes connections and answers nothing.
    pub(crate) fn freeze(&self) {
        process::signal("STOP", i64::from(self.child.id()));
    }

    pub(crate) fn thaw(&self) {
        process::signal("CONT", i64::from(self.child.id()));
    }

    fn try_call(&self, words: &[&str]) -> Option<String> {
        let mut stream = UnixStream::connect(socket(&self.dir)).ok()?;
        stream.set_read_timeout(Some(wait::DEADLINE)).ok()?;
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        if let Some(password) = &self.password {
            send(&mut stream, &["AUTH", password])?;
            read(&mut reader)?;
        }
        send(&mut stream, words)?;
        read(&mut reader)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn socket(dir: &Dir) -> PathBuf {
    dir.path().join("redis.sock")
}

fn spawn(dir: &Dir, password: Option<&str>) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--appendonly", "no", "--daemonize", "no"]);
    command.arg("--unixsocket").arg(socket(dir)).arg("--dir").arg(dir.path());
    if let Some(password) = password {
        command.args(["--requirepass", password]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("redis-server is installed (Debian: apt-get install redis-server)")
}

fn send(stream: &mut UnixStream, words: &[&str]) -> Option<()> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(text.as_bytes()).ok()
}

fn read(reader: &mut BufReader<UnixStream>) -> Option<String> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|length| *length > 0)?;
    let rest = line.trim_end().get(1..)?.to_owned();
    match line.as_bytes()[0] {
        b'$' => {
            let Ok(length) = rest.parse::<usize>() else { return Some(String::new()) };
            let mut bytes = vec![0; length + 2];
            reader.read_exact(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
        }
        b'*' => {
            let parts: Option<Vec<String>> =
                (0..rest.parse::<usize>().unwrap_or(0)).map(|_| read(reader)).collect();
            Some(parts?.join("\n"))
        }
        _ => Some(rest),
    }
}
