//! A private database server: started by the process that uses it, gone when it is.
//!
//! Nothing is left behind whatever becomes of the process, a panic, `exit` or SIGKILL included: a
//! shell waits for the end of a pipe whose other end only the process holds, then stops the server
//! and removes its directory.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

/// A running server. Its only client is this process.
pub(crate) struct Server {
    /// Data, socket and log.
    directory: PathBuf,
    /// Open for as long as the server shall run.
    stay: Option<ChildStdin>,
    shell: Child,
}

impl Server {
    /// Runs `script` with the server's directory as `$2`, between `bin` and what `options` makes of
    /// that directory. It starts the server there, says "ready", waits for the end of its standard
    /// input, stops the server and removes the directory. Servers refuse to run as root: then the
    /// first of `accounts` that there is does it.
    pub(crate) fn start(
        name: &str,
        accounts: &[&str],
        script: &str,
        bin: &Path,
        options: impl FnOnce(&Path) -> String,
    ) -> Result<Self, String> {
        let account = Account::for_server(accounts)?;
        let directory =
            scratch_directory(name).map_err(|error| format!("no directory: {error}"))?;
        if let Some(account) = &account {
            chown(&directory, Some(account.uid), Some(account.gid))
                .map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        let options = options(&directory);
        let mut command = Command::new("/bin/sh");
        command
            .args([OsStr::new("-c"), OsStr::new(script), OsStr::new("sh")])
            .args([bin.as_os_str(), directory.as_os_str(), OsStr::new(&options)])
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not reached by the terminal's Ctrl-C.
            .process_group(0);
        if let Some(account) = &account {
            command.uid(account.uid).gid(account.gid);
        }
        let mut shell = command.spawn().map_err(|error| format!("/bin/sh: {error}"))?;
        let stay = shell.stdin.take();
        let mut answer = String::new();
        for line in BufReader::new(shell.stdout.take().expect("piped")).lines() {
            let line = line.map_err(|error| error.to_string())?;
            if line == "ready" {
                return Ok(Self { directory, stay, shell });
            }
            answer.push_str(&line);
            answer.push('\n');
        }
        let _ = shell.wait();
        Err(format!("the server of {} did not start:\n{answer}", bin.display()))
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stay.take());
        let _ = self.shell.wait();
    }
}

/// Whether [`Server::start`] finds an account to run the server as.
pub(crate) fn can_start(accounts: &[&str]) -> Result<(), String> {
    Account::for_server(accounts).map(drop)
}

/// Whom the server runs as.
struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// `None`: whom this process runs as.
    fn for_server(candidates: &[&str]) -> Result<Option<Self>, String> {
        let owner = fs::metadata("/proc/self").map_err(|error| format!("/proc/self: {error}"))?;
        if std::os::unix::fs::MetadataExt::uid(&owner) != 0 {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        candidates
            .iter()
            .find_map(|wanted| {
                let mut fields = accounts
                    .lines()
                    .map(|line| line.split(':'))
                    .find(|fields| fields.clone().next() == Some(wanted))?
                    .skip(2);
                let uid = fields.next()?.parse().ok()?;
                Some(Some(Self { uid, gid: fields.next()?.parse().ok()? }))
            })
            .ok_or_else(|| format!("running as root, and none of the accounts {candidates:?}"))
    }
}

/// A fresh directory, with a path short enough for a socket (107 bytes, unix(7)).
fn scratch_directory(name: &str) -> io::Result<PathBuf> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let base = if env::temp_dir().as_os_str().len() < 60 { env::temp_dir() } else { "/tmp".into() };
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = base.join(format!("fiberback-{name}-{}-{count}", process::id()));
        match fs::create_dir(&directory) {
            Ok(()) => {
                fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
                return Ok(directory);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
}
