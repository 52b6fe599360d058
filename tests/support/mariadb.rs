//! A private MariaDB server: made and started by the process that uses it, gone when it is.
//!
//! Included by path where it is needed. Uses the system's `mariadbd`.

#[path = "server.rs"]
mod server;

use server::Server;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{env, fs};

/// A running server, which asks nobody for a password.
pub(crate) struct MariaDb {
    server: Server,
    databases: AtomicUsize,
}

/// Starts the server, says "ready", and waits for the end of its standard input.
///
/// Without grant tables an empty data directory will do: nothing needs to be installed into it.
const SHELL: &str = r#"
bin=$1 dir=$2 options=$3
trap '' INT TERM HUP
mkdir -p "$dir/data/mysql"
# Not holding the pipe whose end this waits for.
(trap - INT TERM HUP; exec "$bin" --no-defaults --datadir="$dir/data" --socket="$dir/socket" \
    --pid-file="$dir/pid" --skip-networking --skip-grant-tables $options) \
    </dev/null >"$dir/log" 2>&1 &
server=$!
tries=0
until [ -S "$dir/socket" ] && grep -q "ready for connections" "$dir/log"; do
    tries=$((tries + 1))
    if [ $tries -gt 600 ] || ! kill -0 $server 2>/dev/null; then
        kill -9 $server 2>/dev/null
        tail -n 20 "$dir/log"
        rm -rf "$dir"
        exit 1
    fi
    sleep 0.1
done
echo ready
cat >/dev/null
kill -9 $server
wait $server 2>/dev/null
rm -rf "$dir"
"#;

const OPTIONS: &str = "--innodb-buffer-pool-size=16M --innodb-log-file-size=8M \
    --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --innodb-use-native-aio=0 \
    --max-connections=200 --character-set-server=utf8mb4";

/// As one of these it runs where this process is root's.
const ACCOUNTS: [&str; 2] = ["mysql", "nobody"];

impl MariaDb {
    /// `Err` says why there is none: MariaDB is not installed, or did not start.
    pub(crate) fn start() -> Result<Self, String> {
        let server = Server::start("my", &ACCOUNTS, SHELL, &binary()?, |_| OPTIONS.to_owned())?;
        Ok(Self { server, databases: AtomicUsize::new(0) })
    }

    /// Whether one can be started here; `Err` says what is missing and what installs it.
    pub(crate) fn find() -> Result<(), String> {
        binary().and_then(|_| server::can_start(&ACCOUNTS)).map_err(|reason| {
            format!("{reason}; `.ci/mariadb` installs it (apt-get install mariadb-server-core)")
        })
    }

    /// The process's one server, for tests.
    pub(crate) fn shared() -> &'static Self {
        static SHARED: OnceLock<MariaDb> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().unwrap_or_else(|reason| panic!("{reason}")))
    }

    /// What to connect to for this database; an empty name for none.
    pub(crate) fn url(&self, database: &str) -> String {
        let socket = self.server.directory().join("socket");
        format!("mysql://root@localhost/{database}?socket={}", socket.display())
    }

    /// A name for a database that does not exist yet.
    pub(crate) fn new_name(&self) -> String {
        format!("scratch_{}", self.databases.fetch_add(1, Ordering::Relaxed))
    }
}

/// Where `mariadbd` is. (MySQL's own server does not start in an empty directory.)
fn binary() -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = ["/usr/sbin", "/usr/local/sbin", "/usr/libexec"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(places)
        .map(|place| place.join("mariadbd"))
        .find(|program| fs::metadata(program).is_ok_and(|found| found.is_file()))
        .ok_or_else(|| "no MariaDB is installed: no mariadbd in PATH or /usr/sbin".to_owned())
}
