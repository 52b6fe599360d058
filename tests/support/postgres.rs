//! A private PostgreSQL cluster: made and started by the process that uses it, gone when it is.
//!
//! Included by path where it is needed. Uses the system's `initdb` and `pg_ctl`.

#[path = "server.rs"]
mod server;

use server::Server;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

/// A running server. Its only client is this process; its superuser is `postgres`, without password.
pub(crate) struct Cluster {
    server: Server,
    databases: AtomicUsize,
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

/// As one of these it runs where this process is root's.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

impl Cluster {
    /// Starts a server that lets in so many clients at once.
    ///
    /// `Err` says why there is none: PostgreSQL is not installed, or did not start.
    pub(crate) fn start(max_connections: usize) -> Result<Self, String> {
        let options = |directory: &Path| {
            format!(
                "-c listen_addresses='' -c unix_socket_directories='{}' \
                 -c max_connections={max_connections} -c fsync=off -c full_page_writes=off \
                 -c synchronous_commit=off -c autovacuum=off -c shared_buffers=32MB \
                 -c max_wal_size=256MB -c logging_collector=off",
                directory.display()
            )
        };
        let server = Server::start("pg", &ACCOUNTS, SHELL, &binaries()?, options)?;
        Ok(Self { server, databases: AtomicUsize::new(0) })
    }

    /// Whether one can be started here; `Err` says what is missing and what installs it.
    pub(crate) fn find() -> Result<(), String> {
        binaries().and_then(|_| server::can_start(&ACCOUNTS)).map_err(|reason| {
            format!("{reason}; `.ci/postgres` installs it (apt-get install postgresql)")
        })
    }

    /// The process's one server, for tests.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(|| Self::start(120).unwrap_or_else(|reason| panic!("{reason}")))
    }

    /// What to connect to for this database.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("host={} user=postgres dbname={database}", self.server.directory().display())
    }

    /// A name for a database that does not exist yet.
    pub(crate) fn new_name(&self) -> String {
        format!("scratch_{}", self.databases.fetch_add(1, Ordering::Relaxed))
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
