//! A private PostgreSQL cluster: made and started by the process that uses it, gone when it is.
//!
//! Included by path where it is needed. Uses the system's `initdb` and `pg_ctl`. Nothing is left
//! behind whatever becomes of the process, a panic, `exit` or SIGKILL included: a shell waits for the
//! end of a pipe whose other end only the process holds, then stops the server and removes its
//! directory.

use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs, process};

/// A running server. Its only client is this process; its superuser is `postgres`, without password.
pub(crate) struct Cluster {
    /// Data, socket and log.
    directory: PathBuf,
    databases: AtomicUsize,
    /// Open for as long as the server shall run.
    stay: Option<ChildStdin>,
    shell: Child,
}

/// Starts the server, says "ready", and waits for the end of its standard input.
const SHELL: &str = r#"
bin=$1 dir=$2 options=$3
trap '' INT TERM HUP
"$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$dir/log" 2>&1 &&
"$bin/pg_ctl" start -w -s -t 60 -D "$dir/data" -l "$dir/log" -o "$options" >>"$dir/log" 2>&1 ||
    { tail -n 20 "$dir/log"; rm -rf "$dir"; exit 1; }
echo ready
cat >/dev/null
"$bin/pg_ctl" stop -w -s -m immediate -D "$dir/data" >>"$dir/log" 2>&1
rm -rf "$dir"
"#;

impl Cluster {
    /// Starts a server that lets in so many clients at once.
    ///
    /// `Err` says why there is none: PostgreSQL is not installed, or did not start.
    pub(crate) fn start(max_connections: usize) -> Result<Self, String> {
        let bin = binaries()?;
        let server = Account::for_server()?;
        let directory = scratch_directory().map_err(|error| format!("no directory: {error}"))?;
        if let Some(account) = &server {
            chown(&directory, Some(account.uid), Some(account.gid))
                .map_err(|error| format!("{}: {error}", directory.display()))?;
        }
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' \
             -c max_connections={max_connections} -c fsync=off -c full_page_writes=off \
             -c synchronous_commit=off -c autovacuum=off -c shared_buffers=32MB \
             -c max_wal_size=256MB -c logging_collector=off",
            directory.display()
        );
        let mut command = Command::new("/bin/sh");
        command
            .args([OsStr::new("-c"), OsStr::new(SHELL), OsStr::new("sh")])
            .args([bin.as_os_str(), directory.as_os_str(), OsStr::new(&options)])
            .current_dir(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Not reached by the terminal's Ctrl-C.
            .process_group(0);
        if let Some(account) = &server {
            command.uid(account.uid).gid(account.gid);
        }
        let mut shell = command.spawn().map_err(|error| format!("/bin/sh: {error}"))?;
        let stay = shell.stdin.take();
        let mut answer = String::new();
        for line in BufReader::new(shell.stdout.take().expect("piped")).lines() {
            let line = line.map_err(|error| error.to_string())?;
            if line == "ready" {
                return Ok(Self { directory, databases: AtomicUsize::new(0), stay, shell });
            }
            answer.push_str(&line);
            answer.push('\n');
        }
        let _ = shell.wait();
        Err(format!("PostgreSQL in {} did not start:\n{answer}", bin.display()))
    }

    /// The process's one cluster, for tests. `None`, after a note that no test harness captures,
    /// where PostgreSQL is not installed; unless `FIBERBACK_REQUIRE_POSTGRES` is set.
    pub(crate) fn shared() -> Option<&'static Self> {
        static SHARED: OnceLock<Option<Cluster>> = OnceLock::new();
        SHARED
            .get_or_init(|| match Self::start(120) {
                Ok(cluster) => Some(cluster),
                Err(reason) if env::var_os("FIBERBACK_REQUIRE_POSTGRES").is_some() => {
                    panic!("FIBERBACK_REQUIRE_POSTGRES is set, but: {reason}")
                }
                Err(reason) => {
                    let _ = writeln!(
                        io::stderr(),
                        "\nNOT RUN: the tests that need PostgreSQL: {reason}\n\
                         NOT RUN: `.ci/postgres` installs it (apt-get install postgresql)\n"
                    );
                    None
                }
            })
            .as_ref()
    }

    /// What to connect to for this database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("host={} user=postgres dbname={database}", self.directory.display())
    }

    /// A name for a database that does not exist yet.
    pub(crate) fn new_name(&self) -> String {
        format!("scratch_{}", self.databases.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.stay.take());
        let _ = self.shell.wait();
    }
}

/// Where `initdb` and `pg_ctl` are.
fn binaries() -> Result<PathBuf, String> {
    let mut places = Vec::new();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        places.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    if let Some(path) = env::var_os("PATH") {
        // Links lead to where all the programs are.
        let links =
            env::split_paths(&path).filter_map(|dir| dir.join("initdb").canonicalize().ok());
        places.extend(links.filter_map(|program| Some(program.parent()?.to_owned())));
    }
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    versions.sort_by_key(number);
    places.extend(versions.into_iter().rev().map(|version| version.join("bin")));
    let complete =
        |dir: &Path| ["initdb", "pg_ctl", "postgres"].iter().all(|name| dir.join(name).is_file());
    places.into_iter().find(|dir| complete(dir)).ok_or_else(|| {
        "no PostgreSQL is installed: no initdb, pg_ctl and postgres in `pg_config --bindir`, PATH \
         or /usr/lib/postgresql/*/bin"
            .to_owned()
    })
}

/// Whom the server runs as.
struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// PostgreSQL refuses to run as root: `postgres`, or else `nobody`, does it instead.
    fn for_server() -> Result<Option<Self>, String> {
        let owner = fs::metadata("/proc/self").map_err(|error| format!("/proc/self: {error}"))?;
        if std::os::unix::fs::MetadataExt::uid(&owner) != 0 {
            return Ok(None);
        }
        let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
        ["postgres", "nobody"]
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
            .ok_or_else(|| "running as root, and no account `postgres` or `nobody`".to_owned())
    }
}

/// A fresh directory, with a path short enough for a socket (107 bytes, unix(7)).
fn scratch_directory() -> io::Result<PathBuf> {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let base = if env::temp_dir().as_os_str().len() < 60 { env::temp_dir() } else { "/tmp".into() };
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = base.join(format!("fiberback-pg-{}-{count}", process::id()));
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
